//! What holds for every job and every state of its pods.

use muster_trainer_core::{Effect, GangScheduler};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{Replicas, World, manifest_of, read};

#[derive(Debug, Clone, Copy)]
enum Fate {
    Absent,
    Pending,
    Running,
    Exited(i32),
    Evicted,
    Deleting,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        1 => Just(Fate::Absent),
        1 => Just(Fate::Pending),
        4 => Just(Fate::Running),
        2 => prop_oneof![Just(0), Just(1), Just(137)].prop_map(Fate::Exited),
        1 => Just(Fate::Evicted),
        1 => Just(Fate::Deleting),
    ]
}

/// The field that makes a job elastic, and whether it is a mere yes.
type Elasticity = Option<(&'static str, bool)>;

/// A kind and what its pods are, workers aside; and what makes it elastic.
const SHAPES: &[(&str, Replicas, Elasticity)] = &[
    ("PyTorchJob", &[("Master", 1)], Some(("elasticPolicy", false))),
    ("TFJob", &[("PS", 1)], Some(("enableDynamicWorker", true))),
    ("TFJob", &[("Chief", 1), ("PS", 1)], Some(("enableDynamicWorker", true))),
    ("XGBoostJob", &[("Master", 1)], None),
    ("JAXJob", &[], None),
    ("PaddleJob", &[("Master", 1)], Some(("elasticPolicy", false))),
    ("PaddleJob", &[], Some(("elasticPolicy", false))),
];

fn job() -> impl Strategy<Value = Value> {
    let policies =
        prop::option::of(prop_oneof![Just("Always"), Just("OnFailure"), Just("Never"), Just("ExitCode")]);
    let limit = prop::option::of(0..3);
    let clean = prop_oneof![Just("All"), Just("Running"), Just("None")];
    (prop::sample::select(SHAPES), 1..4, policies, limit, clean, any::<bool>(), any::<bool>()).prop_map(
        |((kind, others, elasticity), workers, policy, limit, clean, elastic, suspend)| {
            let replicas = [others, &[("Worker", workers)]].concat();
            let mut job = manifest_of(kind, &replicas);
            let specs = read(&job).kind.replica_specs;
            if let Some(policy) = policy {
                job["spec"][specs]["Worker"]["restartPolicy"] = json!(policy);
            }
            job["spec"]["runPolicy"] = json!({"cleanPodPolicy": clean, "suspend": suspend});
            if let Some(limit) = limit {
                job["spec"]["runPolicy"]["backoffLimit"] = json!(limit);
            }
            match elasticity.filter(|_| elastic) {
                Some((field, true)) => job["spec"][field] = json!(true),
                Some((field, false)) => job["spec"][field] = json!({"minReplicas": 1, "maxReplicas": 4}),
                None => {}
            }
            job
        },
    )
}

fn meet(world: &mut World, fates: &[Fate]) {
    for (name, fate) in world.pods.keys().cloned().collect::<Vec<_>>().into_iter().zip(fates) {
        match fate {
            Fate::Absent => drop(world.pods.remove(&name)),
            Fate::Pending => {}
            Fate::Running => world.run(&name),
            Fate::Exited(code) => world.exit(&name, *code),
            Fate::Evicted => world.set_pod_status(&name, json!({"phase": "Failed", "reason": "Evicted"})),
            Fate::Deleting => {
                world.run(&name);
                let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
                world.pods.get_mut(&name).unwrap().metadata.deletion_timestamp = Some(now);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A plan carried out leaves nothing to plan: whatever the pods did, a few rounds settle the job.
    #[test]
    fn plans_come_to_rest(job in job(), fates in prop::collection::vec(fate(), 5), again in prop::collection::vec(fate(), 5)) {
        let mut world = World::new(job);
        world.options.gang_scheduler = GangScheduler::Muster;
        world.settle();
        for fates in [fates, again] {
            meet(&mut world, &fates);
            world.settle();
            world.advance(600);
            world.settle();
            prop_assert!(world.plan().is_empty());
        }
    }

    /// No plan creates two objects of one name, nor one that is there, nor deletes one that is not.
    #[test]
    fn plans_name_objects_once(job in job(), fates in prop::collection::vec(fate(), 5)) {
        let mut world = World::new(job);
        world.settle();
        meet(&mut world, &fates);
        for _ in 0..4 {
            let plan = world.plan();
            let mut names = std::collections::BTreeSet::new();
            for effect in plan.stages().into_iter().flatten() {
                match effect {
                    Effect::CreatePod(pod) => {
                        let name = pod.metadata.name.unwrap();
                        prop_assert!(!world.pods.contains_key(&name));
                        prop_assert!(names.insert(name));
                    }
                    Effect::DeletePod(deletion) => prop_assert!(world.pods.contains_key(&deletion.name)),
                    Effect::DeleteService(name) => prop_assert!(world.services.contains_key(&name)),
                    _ => {}
                }
            }
            world.reconcile();
        }
    }

    /// Memory only grows, and a job that has ended stays as it is.
    #[test]
    fn counters_grow_and_ends_are_final(job in job(), waves in prop::collection::vec(prop::collection::vec(fate(), 5), 1..6)) {
        let mut world = World::new(job);
        world.settle();
        let count = |world: &World, key: &str| world.annotation(key).map_or(0, |text| text.parse::<u64>().unwrap());
        let keys = ["muster.dev/gang-generation", "muster.dev/restart-count", "muster.dev/infrastructure-restart-count"];
        for fates in waves {
            let before = keys.map(|key| count(&world, key));
            let status = world.job.as_ref().unwrap().status.clone();
            meet(&mut world, &fates);
            world.advance(400);
            world.settle();
            let after = keys.map(|key| count(&world, key));
            prop_assert!(before.iter().zip(&after).all(|(before, after)| before <= after));
            if status.is_finished() {
                prop_assert_eq!(&status, &world.job.as_ref().unwrap().status);
                prop_assert_eq!(before, after);
            }
        }
    }
}
