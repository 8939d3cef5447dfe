//! What holds for every set and every state of its Jobs.

use std::collections::BTreeSet;

use muster_trainer_core::jobset::Effect;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, manifest};

#[derive(Debug, Clone, Copy)]
enum Fate {
    Absent,
    Waiting,
    Ready,
    Complete,
    Failed,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Absent),
        Just(Fate::Waiting),
        Just(Fate::Ready),
        Just(Fate::Complete),
        Just(Fate::Failed)
    ]
}

fn set() -> impl Strategy<Value = Value> {
    let actions = prop_oneof![
        Just("FailJobSet"),
        Just("RestartJobSet"),
        Just("RestartJobSetAndIgnoreMaxRestarts"),
        Just("RestartJob"),
        Just("RestartJobAndIgnoreMaxRestarts")
    ];
    let waits = prop::option::of(prop_oneof![Just("Ready"), Just("Complete")]);
    let operators = prop_oneof![Just("All"), Just("Any")];
    (0..3, 0..4, prop::option::of(actions), waits, operators, any::<bool>(), any::<bool>()).prop_map(
        |(data, nodes, action, waits, operator, blocks, suspend)| {
            let mut set = manifest(&[("data", data), ("node", nodes)]);
            let spec = &mut set["spec"];
            spec["suspend"] = json!(suspend);
            spec["successPolicy"] = json!({"operator": operator});
            if let Some(action) = action {
                let strategy = if blocks { "BlockingRecreate" } else { "Recreate" };
                let rules = json!([{"name": "all", "action": action}]);
                spec["failurePolicy"] =
                    json!({"maxRestarts": 2, "restartStrategy": strategy, "rules": rules});
            }
            if let Some(waits) = waits {
                spec["replicatedJobs"][1]["dependsOn"] = json!([{"name": "data", "status": waits}]);
            }
            set
        },
    )
}

fn meet(world: &mut World, fates: &[Fate]) {
    for (name, fate) in world.jobs.keys().cloned().collect::<Vec<_>>().into_iter().zip(fates) {
        let has_ended = world.jobs[&name].status.as_ref().is_some_and(|status| status.conditions.is_some());
        match fate {
            Fate::Absent => drop(world.jobs.remove(&name)),
            _ if has_ended => {}
            Fate::Waiting => {}
            Fate::Ready => world.ready(&name),
            Fate::Complete => world.complete(&name),
            Fate::Failed => world.fail(&name),
        }
    }
}

fn waves() -> impl Strategy<Value = Vec<Vec<Fate>>> {
    prop::collection::vec(prop::collection::vec(fate(), 5), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A plan carried out leaves nothing to plan, whatever the Jobs did; counters only grow, and ends are final.
    #[test]
    fn plans_come_to_rest_and_remember(set in set(), waves in waves()) {
        let mut world = World::new(set);
        world.settle();
        for fates in waves {
            let before = world.status();
            meet(&mut world, &fates);
            world.settle();
            prop_assert!(world.plan().is_empty());
            let after = world.status();
            prop_assert!(before.restarts <= after.restarts);
            prop_assert!(after.restarts_count_towards_max <= 2);
            if before.is_finished() {
                prop_assert_eq!(before, after);
            }
        }
    }

    /// No plan creates two objects of one name, nor one that is there, nor deletes one that is not.
    #[test]
    fn plans_name_jobs_once(set in set(), waves in waves()) {
        let mut world = World::new(set);
        for fates in waves {
            world.settle();
            meet(&mut world, &fates);
            let mut created = BTreeSet::new();
            for effect in world.plan().stages().into_iter().flatten() {
                match effect {
                    Effect::CreateJob(job) => prop_assert!(created.insert(job.metadata.name.unwrap())),
                    Effect::DeleteJob(deletion) => prop_assert!(world.jobs.contains_key(&deletion.name)),
                    Effect::UpdateJob(job) => {
                        prop_assert!(world.jobs.contains_key(&job.metadata.name.unwrap()));
                    }
                    _ => {}
                }
            }
            prop_assert!(created.iter().all(|name| !world.jobs.contains_key(name)));
        }
    }
}
