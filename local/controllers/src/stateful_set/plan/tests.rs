use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use proptest::prelude::{Just, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;
use crate::history::REVISION_LABEL;

const NAMES: Names<'static> = Names { current: "web-old", update: "web-new" };

fn set(replicas: i32, spec: Value) -> StatefulSet {
    let mut whole = json!({
        "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
        "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c" }] } },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(
        json!({ "metadata": { "name": "web", "uid": "u", "generation": 2 }, "spec": whole }),
    )
    .unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(100).unwrap()
}

/// A pod that has been ready since `ready_since`, if at all.
fn pod(set: &StatefulSet, ordinal: i32, revision: &str, ready_since: Option<i64>) -> Arc<Pod> {
    let template = &set.spec.as_ref().unwrap().template;
    let mut pod = identity::pod(set, ordinal, template, revision);
    pod.metadata.uid = Some(format!("{revision}-{ordinal}"));
    pod.status = Some(
        serde_json::from_value(json!({ "phase": "Running", "conditions": [{
            "type": "Ready", "status": if ready_since.is_some() { "True" } else { "False" },
            "lastTransitionTime": Timestamp::from_second(ready_since.unwrap_or(0)).unwrap().to_string(),
        }]}))
        .unwrap(),
    );
    Arc::new(pod)
}

fn changed(pod: &Arc<Pod>, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    change(&mut pod);
    Arc::new(pod)
}

fn terminating(pod: &Arc<Pod>) -> Arc<Pod> {
    changed(pod, |pod| pod.metadata.deletion_timestamp = Some(Time(now())))
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|pod| pod.name_any()).collect()
}

#[test]
fn pods_come_one_after_the_other_unless_the_set_says_otherwise() {
    let ordered = set(3, json!({}));
    assert_eq!(plan(&ordered, &[], NAMES, now()).create, [(0, Follows::Update)]);
    let first = pod(&ordered, 0, "web-new", Some(0));
    assert_eq!(plan(&ordered, std::slice::from_ref(&first), NAMES, now()).create, [(1, Follows::Update)]);
    let unready = [pod(&ordered, 0, "web-new", None)];
    assert!(plan(&ordered, &unready, NAMES, now()).create.is_empty());
    let parallel = set(3, json!({ "podManagementPolicy": "Parallel", "ordinals": { "start": 5 } }));
    let all = plan(&parallel, &[], NAMES, now()).create;
    assert_eq!(all, [5, 6, 7].map(|ordinal| (ordinal, Follows::Update)));
}

#[test]
fn pods_go_from_the_highest_ordinal_on() {
    let set = set(1, json!({}));
    let pods: Vec<_> = (0..3).map(|ordinal| pod(&set, ordinal, "web-new", Some(0))).collect();
    assert_eq!(names(&plan(&set, &pods, NAMES, now()).delete), ["web-2"]);
    let waits = [pods[0].clone(), pods[1].clone(), terminating(&pods[2])];
    assert!(plan(&set, &waits, NAMES, now()).delete.is_empty(), "the last must be gone first");
    let moved = self::set(2, json!({ "ordinals": { "start": 1 } }));
    assert_eq!(
        names(&plan(&moved, &pods, NAMES, now()).delete),
        ["web-0"],
        "below the start is too many, too"
    );
}

#[test]
fn a_pod_that_is_not_well_holds_up_those_below_it_but_can_go_itself() {
    let set = set(0, json!({}));
    let sick = [pod(&set, 0, "web-new", Some(0)), pod(&set, 1, "web-new", None)];
    assert_eq!(names(&plan(&set, &sick, NAMES, now()).delete), ["web-1"]);
    let both = [pod(&set, 0, "web-new", None), pod(&set, 1, "web-new", None)];
    assert!(plan(&set, &both, NAMES, now()).delete.is_empty());
}

#[test]
fn a_pod_that_ended_is_replaced_under_its_name() {
    let set = set(2, json!({}));
    let ended = changed(&pod(&set, 0, "web-new", None), |pod| {
        pod.status.get_or_insert_default().phase = Some("Failed".into());
    });
    let plan_ = plan(&set, std::slice::from_ref(&ended), NAMES, now());
    assert_eq!((names(&plan_.delete), plan_.create.len()), (vec!["web-0".to_owned()], 0));
    assert!(plan(&set, &[terminating(&ended)], NAMES, now()).delete.is_empty());
}

#[test]
fn a_rollout_goes_down_from_the_highest_ordinal_to_the_partition() {
    let set =
        set(3, json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 1 } } }));
    let old: Vec<_> = (0..3).map(|ordinal| pod(&set, ordinal, "web-old", Some(0))).collect();
    let first = plan(&set, &old, NAMES, now());
    assert_eq!(names(&first.delete), ["web-2"]);
    let status = first.status;
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(3), None));
    let missing = plan(&set, &old[..2], NAMES, now());
    assert_eq!((missing.create, missing.delete.len()), (vec![(2, Follows::Update)], 0));
    let second = [old[0].clone(), old[1].clone(), pod(&set, 2, "web-new", Some(0))];
    assert_eq!(names(&plan(&set, &second, NAMES, now()).delete), ["web-1"]);
    let third = [old[0].clone(), pod(&set, 1, "web-new", Some(0)), second[2].clone()];
    let done = plan(&set, &third, NAMES, now());
    assert!(done.delete.is_empty(), "web-0 is below the partition");
    assert_eq!(done.status.current_revision.as_deref(), Some("web-old"));
    let lost = plan(&set, &third[1..], NAMES, now());
    assert_eq!(lost.create, [(0, Follows::Current)], "a pod below the partition comes back as it was");
}

#[test]
fn several_pods_may_be_missing_during_a_rollout_if_the_set_says_so() {
    let strategy = |max: Value| {
        json!({ "podManagementPolicy": "Parallel",
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": max } } })
    };
    let five = set(5, strategy(json!("50%")));
    let mut pods: Vec<_> = (0..5).map(|ordinal| pod(&five, ordinal, "web-old", Some(0))).collect();
    assert_eq!(names(&plan(&five, &pods, NAMES, now()).delete), ["web-4", "web-3"], "rounded down");
    pods[0] = pod(&five, 0, "web-old", None);
    assert_eq!(
        names(&plan(&five, &pods, NAMES, now()).delete),
        ["web-4", "web-0"],
        "web-0 is missing already"
    );
    let one = set(5, strategy(json!("1%")));
    assert!(plan(&one, &pods[1..], NAMES, now()).delete.is_empty(), "one is missing");
}

#[test]
fn with_on_delete_a_person_decides_when_a_pod_is_new() {
    let set = set(1, json!({ "updateStrategy": { "type": "OnDelete" } }));
    let old = [pod(&set, 0, "web-old", Some(0))];
    assert!(plan(&set, &old, NAMES, now()).delete.is_empty());
    assert_eq!(plan(&set, &[], NAMES, now()).create, [(0, Follows::Update)]);
}

#[test]
fn a_finished_rollout_moves_the_current_revision_and_an_early_pod_waits() {
    let set = set(1, json!({ "minReadySeconds": 30 }));
    let fresh = plan(&set, &[pod(&set, 0, "web-new", Some(80))], NAMES, now());
    assert_eq!(fresh.again, Some(Duration::from_secs(10)));
    assert_eq!((fresh.status.ready_replicas, fresh.status.available_replicas), (Some(1), Some(0)));
    assert_eq!(fresh.status.current_revision.as_deref(), Some("web-new"));
    assert_eq!((fresh.status.observed_generation, fresh.status.collision_count), (Some(2), Some(0)));
}

#[test]
fn labels_come_back_and_a_set_on_its_way_out_does_nothing() {
    let mut set = set(2, json!({}));
    let stripped = changed(&pod(&set, 0, "web-new", Some(0)), |pod| {
        pod.metadata.labels.get_or_insert_default().remove(identity::POD_INDEX);
    });
    assert_eq!(names(&plan(&set, std::slice::from_ref(&stripped), NAMES, now()).mark), ["web-0"]);
    set.metadata.deletion_timestamp = Some(Time(now()));
    let leaving = plan(&set, &[stripped], NAMES, now());
    assert!(leaving.create.is_empty() && leaving.mark.is_empty());
}

/// What a test's kubelet does with a pod in one step.
#[derive(Debug, Clone, Copy)]
enum Turn {
    BecomesReady,
    Falls,
    Ends,
}

/// Carries a plan out, then lets the pods have their turns.
fn live(set: &StatefulSet, pods: &mut BTreeMap<i32, Arc<Pod>>, turns: &[Turn]) {
    let all: Vec<_> = pods.values().cloned().collect();
    let plan = plan(set, &all, NAMES, now());
    for (ordinal, follows) in plan.create {
        let name = if follows == Follows::Current { NAMES.current } else { NAMES.update };
        assert!(pods.insert(ordinal, pod(set, ordinal, name, None)).is_none(), "two pods of one name");
    }
    for doomed in plan.delete {
        let number = ordinal(set, &doomed).unwrap();
        pods.insert(number, terminating(&doomed));
    }
    for ((number, one), turn) in pods.clone().into_iter().zip(turns.iter().cycle()) {
        if is_terminating(&one) {
            pods.remove(&number);
            continue;
        }
        let name = revision(&one).to_owned();
        let next = match turn {
            Turn::BecomesReady => pod(set, number, &name, Some(0)),
            Turn::Falls => pod(set, number, &name, None),
            Turn::Ends => changed(&one, |pod| {
                pod.status.get_or_insert_default().phase = Some("Failed".into());
            }),
        };
        pods.insert(number, next);
    }
}

proptest! {
    /// Whatever happened before, a set whose pods become ready ends with exactly the pods that it wants, each after
    /// the template of its side of the partition.
    #[test]
    fn a_set_arrives_at_what_it_wants(
        before in 0..6_i32,
        start in 0..3_i32,
        replicas in 0..6_i32,
        partition in 0..4_i32,
        policy in prop_oneof![Just("OrderedReady"), Just("Parallel")],
        max in 1..4_i32,
        trouble in proptest::collection::vec(
            prop_oneof![3 => Just(Turn::BecomesReady), 1 => Just(Turn::Falls), 1 => Just(Turn::Ends)], 1..12),
    ) {
        let spec = json!({
            "podManagementPolicy": policy, "ordinals": { "start": start },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": partition, "maxUnavailable": max } },
        });
        let set = set(replicas, spec);
        let mut pods: BTreeMap<i32, Arc<Pod>> =
            (0..before).map(|ordinal| (ordinal, pod(&set, ordinal, NAMES.current, Some(0)))).collect();
        for shift in 0..trouble.len() {
            let mut turns = trouble.clone();
            turns.rotate_left(shift);
            live(&set, &mut pods, &turns);
        }
        for _ in 0..60 {
            live(&set, &mut pods, &[Turn::BecomesReady]);
        }
        prop_assert_eq!(pods.keys().copied().collect::<Vec<_>>(), (start..start + replicas).collect::<Vec<_>>());
        for (index, pod) in pods.values().enumerate() {
            let kept = (index as i32) < partition;
            prop_assert!(kept || revision(pod) == NAMES.update, "{} is not updated", pod.name_any());
            prop_assert!(pod.labels().contains_key(REVISION_LABEL));
        }
        let settled: Vec<_> = pods.values().cloned().collect();
        let plan = plan(&set, &settled, NAMES, now());
        prop_assert!(plan.create.is_empty() && plan.delete.is_empty());
    }

    /// A rollout of pods that all become ready never has more pods missing than the set allows, and an ordered set
    /// never creates one before those below it are ready.
    #[test]
    fn a_rollout_keeps_enough_pods(
        replicas in 1..8_i32,
        max in 1..4_i32,
        policy in prop_oneof![Just("OrderedReady"), Just("Parallel")],
    ) {
        let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": max } });
        let set = set(replicas, json!({ "podManagementPolicy": policy, "updateStrategy": rolling }));
        let mut pods: BTreeMap<i32, Arc<Pod>> =
            (0..replicas).map(|ordinal| (ordinal, pod(&set, ordinal, NAMES.current, Some(0)))).collect();
        for _ in 0..40 {
            live(&set, &mut pods, &[Turn::BecomesReady]);
            let ready = pods.values().filter(|pod| is_ready(pod) && !is_terminating(pod)).count() as i32;
            prop_assert!(ready >= replicas - max, "{ready} of {replicas} are ready, {max} may be missing");
        }
        prop_assert!(pods.values().all(|pod| revision(pod) == NAMES.update));
    }
}
