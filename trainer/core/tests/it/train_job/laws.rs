//! What holds for every job and every runtime.

use std::collections::BTreeSet;

use muster_trainer_core::GangScheduler;
use muster_trainer_core::jobset;
use muster_trainer_core::train_job::{render, validate};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, job, runtime};

fn policy() -> impl Strategy<Value = Value> {
    let nodes = prop::option::of(1..4);
    let framework = prop_oneof![
        Just(json!({})),
        Just(json!({"torch": {}})),
        Just(json!({"jax": {}})),
        Just(json!({"xgboost": {}})),
    ];
    (nodes, framework).prop_map(|(nodes, mut policy)| {
        if let Some(nodes) = nodes {
            policy["numNodes"] = json!(nodes);
        }
        policy
    })
}

fn trainer() -> impl Strategy<Value = Value> {
    let name =
        prop_oneof![Just("A"), Just("B"), Just("PET_NNODES"), Just("JAX_PROCESS_ID"), Just("DMLC_TASK_ID")];
    let names = prop::collection::btree_set(name, 0..4);
    (prop::option::of(0..5), prop::option::of(1..4), names, 0..3_i64).prop_map(
        |(nodes, processes, names, gpus)| {
            let env: Vec<_> = names.into_iter().map(|name| json!({"name": name, "value": "x"})).collect();
            let mut trainer = json!({"env": env});
            if let Some(nodes) = nodes {
                trainer["numNodes"] = json!(nodes);
            }
            if let Some(processes) = processes {
                trainer["numProcPerNode"] = json!(processes);
            }
            if gpus > 0 {
                trainer["resourcesPerNode"] = json!({"limits": {"nvidia.com/gpu": gpus}});
            }
            trainer
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A valid job becomes a valid JobSet with as many pods as nodes, and each of its variables occurs once.
    #[test]
    fn valid_jobs_become_valid_jobsets(policy in policy(), trainer in trainer()) {
        let world = World::new(job(json!({"trainer": trainer})), runtime(policy.clone()));
        let runtime = world.view.runtime.unwrap().spec;
        prop_assume!(validate(&world.view.job, &runtime).is_empty());
        let set = render(&world.view.job, &runtime, &GangScheduler::Muster).jobset;
        prop_assert_eq!(jobset::validate(&set), vec![]);
        let spec = set.spec.replicated_jobs[0].template.spec.clone().unwrap();
        let nodes = trainer["numNodes"].as_i64().or(policy["numNodes"].as_i64()).unwrap_or(1);
        prop_assert_eq!(spec.completions.map(i64::from), Some(nodes));
        let variables = spec.template.spec.unwrap().containers[0].env.clone().unwrap_or_default();
        let names: BTreeSet<_> = variables.iter().map(|variable| &variable.name).collect();
        prop_assert_eq!(names.len(), variables.len());
    }

    /// Planning is settled after it was carried out once, and the end is final whatever comes after.
    #[test]
    fn ends_are_final(policy in policy(), trainer in trainer(), completes in any::<bool>(), suspend in any::<bool>()) {
        let mut world = World::new(job(json!({"trainer": trainer})), runtime(policy));
        world.settle();
        if world.view.jobset.is_some() {
            world.end(if completes { "Completed" } else { "Failed" }, "Reason");
        }
        world.settle();
        let status = world.status();
        prop_assert!(status.is_finished());
        world.view.jobset = None;
        world.change(|job| job.spec.suspend = Some(suspend));
        world.advance(1_000);
        world.settle();
        prop_assert_eq!(world.status(), status);
        prop_assert!(world.view.jobset.is_none());
    }
}
