//! Pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_scheduler_api::{DEFAULT_SCHEDULER_NAME, GANG_GATE, annotations, labels};
use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{Assignment, Member, PodKey};
use muster_scheduler_queue::job::Restart;
use muster_scheduler_queue::time::Milliseconds;

use super::claims::{self, PodClaim};
use super::constraints::{self, required, toleration};
use super::membership::Membership;
use super::requests::{requests, whole};
use super::wishes::{Problem, Wishes, duration, duration_or_none, seconds};

const LENGTH: &str = "a length of time above 0, such as 90m or 2h 30m";

/// What a pod says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct PodFacts {
    /// Namespace and name.
    pub key: PodKey,
    /// What it needs of a node.
    pub member: Member,
    /// Its gang.
    pub membership: Membership,
    /// Who is to bind it.
    pub scheduler_name: String,
    /// How far it has come.
    pub stage: Stage,
    /// The place to which it says that its gate was opened, where its affinity leaves it no other node. Anybody can
    /// write that on a pod: it counts only when a plan says the same.
    pub steered_to: Option<Assignment>,
    /// Whether the scheduler that it names finds no node for it.
    pub unschedulable: bool,
    /// Higher goes first.
    pub priority: i32,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// The queue that it names.
    pub queue: Option<String>,
    /// Who submitted it: its namespace.
    pub user: String,
    /// How long it runs at most.
    pub limit: Option<Milliseconds>,
    /// The advance reservation in which it runs.
    pub reservation: Option<String>,
    /// What is lost when it is evicted.
    pub restart: Restart,
    /// How long it waits for nearer places at the most.
    pub nearness: Option<Milliseconds>,
    /// Seconds that a step took lately, as the job has measured them. Of a report that cannot be read nothing is said:
    /// it keeps nobody back.
    pub step: Option<f64>,
    /// Its controller.
    pub owner: Option<OwnerReference>,
    /// What it asks for and cannot have as it is written.
    pub problems: Vec<Problem>,
    /// Fields that restrict where it may go, and that no plan looks at.
    pub unheeded: Vec<&'static str>,
    /// Its claims of devices.
    pub claims: Vec<PodClaim>,
}

/// How far a pod has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It must not be scheduled before these gates are gone.
    Gated(Vec<String>),
    /// It needs a node.
    Waiting,
    /// It has one.
    Bound(Assignment),
    /// It has one, and is being deleted.
    Leaving(Assignment),
    /// It needs none any more.
    Ended(Ending),
}

/// How a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All of its containers succeeded.
    Succeeded,
    /// It failed or was evicted: its controller may create another.
    Failed,
    /// It is being deleted before it had a node.
    Deleted,
}

impl Stage {
    /// Whether nothing but the gate of gangs is closed.
    pub fn waits_at_gang_gate(&self) -> bool {
        matches!(self, Self::Gated(gates) if *gates == [GANG_GATE])
    }
}

impl PodFacts {
    /// Reads a pod.
    pub fn read(pod: &Pod) -> Self {
        let mut wishes = Wishes::of(pod);
        let key = PodKey::new(
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
        );
        let nothing = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&nothing);
        let membership = Membership::read(&key, spec, &mut wishes);
        let member = member(&key, pod, spec, &mut wishes);
        let limit = wishes.read(annotations::TIME_LIMIT, LENGTH, duration);
        let declared = spec.active_deadline_seconds.map(|seconds| seconds.saturating_mul(1000));
        let scheduler_name = spec.scheduler_name.as_deref().filter(|name| !name.is_empty());
        let mut owners = pod.metadata.owner_references.iter().flatten();
        Self {
            stage: stage(pod, spec, &member),
            steered_to: wishes
                .annotation(annotations::PLACED_ON)
                .filter(|node| constraints::only_on(&member.required_affinity, node))
                .map(|node| assignment(pod, node, &member)),
            unschedulable: unschedulable(pod),
            scheduler_name: scheduler_name.unwrap_or(DEFAULT_SCHEDULER_NAME).to_owned(),
            priority: spec.priority.unwrap_or(0),
            created: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            queue: wishes.label(labels::QUEUE).map(str::to_owned),
            user: key.namespace.clone(),
            limit: limit.or(declared),
            reservation: wishes.name(annotations::RESERVATION),
            restart: restart(&mut wishes),
            nearness: wishes.read(
                annotations::WAIT_FOR_NEARER,
                "a length of time such as 10m, or 0s",
                duration_or_none,
            ),
            step: wishes.annotation(annotations::STEP_SECONDS).and_then(seconds),
            owner: owners.find(|owner| owner.controller == Some(true)).cloned(),
            problems: wishes.problems,
            unheeded: constraints::unheeded(spec),
            claims: claims::claims(pod, spec),
            key,
            member,
            membership,
        }
    }
}

fn restart(wishes: &mut Wishes<'_>) -> Restart {
    let never = wishes.read(annotations::EVICTION, "`never`", |text| (text == "never").then_some(()));
    let every = wishes.read(annotations::CHECKPOINT_EVERY, LENGTH, duration);
    if never.is_some() && every.is_some() {
        let (left, right) = (annotations::EVICTION, annotations::CHECKPOINT_EVERY);
        wishes.problems.push(Problem::Contradiction { left, right });
    }
    Restart { checkpoint_every: every, movable: every.is_some(), never: never.is_some() }
}

fn member(key: &PodKey, pod: &Pod, spec: &PodSpec, wishes: &mut Wishes<'_>) -> Member {
    let requests = requests(spec);
    let gpus = whole(&requests, GPU_RESOURCE);
    let share = wishes.read(annotations::GPU_SHARE, "thousandths of a GPU, 1 to 1000", |text| {
        text.parse::<u16>().ok().filter(|share| (1..=1000).contains(share))
    });
    if gpus > 0 && share.is_some() {
        wishes.problems.push(Problem::Contradiction { left: annotations::GPU_SHARE, right: GPU_RESOURCE });
    }
    let rank = wishes.read(annotations::RANK, "a whole number, from 0", |text| text.parse().ok());
    Member {
        name: key.name.clone(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        requests,
        gpus,
        gpu_share: if gpus == 0 { share.unwrap_or(0) } else { 0 },
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        required_affinity: spec.affinity.as_ref().map(required).unwrap_or_default(),
        tolerations: spec.tolerations.iter().flatten().map(toleration).collect(),
        rank: rank.or_else(|| rank_of_others(wishes)).unwrap_or(u32::MAX),
        ..Member::default()
    }
}

/// The place in the order in which other systems number the pods of a job.
fn rank_of_others(wishes: &Wishes<'_>) -> Option<u32> {
    const COMPLETION: &str = "batch.kubernetes.io/job-completion-index";
    const OTHERS: [&str; 5] = [
        "kueue.x-k8s.io/pod-group-pod-index",
        "leaderworkerset.sigs.k8s.io/worker-index",
        "training.kubeflow.org/replica-index",
        COMPLETION,
        "apps.kubernetes.io/pod-index",
    ];
    let number = |label: &str| -> Option<u32> { wishes.label(label)?.parse().ok() };
    if let Some(job) = number("jobset.sigs.k8s.io/job-global-index") {
        // Jobs of a set one after the other, each with fewer pods than that.
        return Some(job.saturating_mul(1 << 17).saturating_add(number(COMPLETION).unwrap_or(0)));
    }
    OTHERS.into_iter().find_map(number)
}

fn stage(pod: &Pod, spec: &PodSpec, member: &Member) -> Stage {
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let node = spec.node_name.as_deref().filter(|node| !node.is_empty());
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return Stage::Ended(Ending::Succeeded),
        Some("Failed") => return Stage::Ended(Ending::Failed),
        _ => {}
    }
    let gates = spec.scheduling_gates.iter().flatten();
    match node.map(|node| assignment(pod, node, member)) {
        Some(assignment) if leaving => Stage::Leaving(assignment),
        Some(assignment) => Stage::Bound(assignment),
        None if leaving => Stage::Ended(Ending::Deleted),
        None => {
            let gates: Vec<String> = gates.map(|gate| gate.name.clone()).collect();
            if gates.is_empty() { Stage::Waiting } else { Stage::Gated(gates) }
        }
    }
}

fn unschedulable(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })
}

/// What a pod has on its node. Slots that are not as many different numbers as it asks for are the node's business: it
/// chose others.
fn assignment(pod: &Pod, node: &str, member: &Member) -> Assignment {
    let annotations = pod.metadata.annotations.as_ref();
    let slots = annotations.and_then(|all| all.get(annotations::GPU_INDICES)).map_or("", String::as_str);
    let mut gpu_indices: Vec<u32> = slots.split(',').filter_map(|slot| slot.trim().parse().ok()).collect();
    let different: BTreeSet<&u32> = gpu_indices.iter().collect();
    let asked = if member.gpu_share > 0 { 1 } else { member.gpus as usize };
    if different.len() != gpu_indices.len() || different.len() != asked {
        gpu_indices.clear();
    }
    Assignment {
        uid: member.uid.clone(),
        node: node.to_owned(),
        resources: member.requests.clone(),
        gpu_indices,
        gpu_share: member.gpu_share,
        claims: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use muster_scheduler_core::{Closeness, GpuDemand, Slice};
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::{ClaimSource, GangKey};

    fn read(metadata: Value, spec: &Value) -> PodFacts {
        let mut pod = json!({"metadata": metadata, "spec": spec});
        pod["metadata"]["name"] = json!("p-0");
        pod["metadata"]["namespace"] = json!("team");
        pod["metadata"]["uid"] = json!("u");
        PodFacts::read(&serde_json::from_value(pod).unwrap())
    }

    fn with(annotations: Value) -> PodFacts {
        read(json!({"annotations": annotations}), &json!({"containers": []}))
    }

    fn said(facts: &PodFacts) -> Vec<String> {
        facts.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_without_wishes_is_a_gang_of_its_own() {
        let facts = with(json!({}));
        assert_eq!(facts.membership.gang, GangKey { namespace: "team".into(), name: "pod p-0".into() });
        assert_eq!((facts.membership.named, facts.membership.min_available), (false, 1));
        assert_eq!((facts.scheduler_name.as_str(), facts.queue), ("default-scheduler", None));
        assert_eq!((facts.stage, facts.problems), (Stage::Waiting, vec![]));
    }

    #[test]
    fn wishes_are_read() {
        let facts = with(json!({
            "muster.dev/gang": "g", "muster.dev/gang-min-available": "3", "muster.dev/rank": " 2 ",
            "muster.dev/required-topology": "topology.kubernetes.io/zone",
            "muster.dev/preferred-topology": "muster.dev/rack, muster.dev/block",
            "muster.dev/topology-slice": "8@kubernetes.io/hostname", "muster.dev/gang-spares": "1",
            "muster.dev/gpu-share": "250", "muster.dev/reservation": "night", "muster.dev/time-limit": "1h 30m", "muster.dev/checkpoint-every": "10m",
            "muster.dev/group-shape": "tp=8, dp=4", "muster.dev/all-reduce-bytes": "13Gi", "muster.dev/step-seconds": "0.25",
            "muster.dev/wait-for-nearer": "0s",
        }));
        assert_eq!(facts.nearness, Some(0));
        assert_eq!(said(&facts), [""; 0]);
        let membership = facts.membership;
        assert_eq!((membership.gang.name.as_str(), membership.min_available, membership.spares), ("g", 3, 1));
        assert_eq!(
            membership.shape.map(|shape| shape.to_string()).as_deref(),
            Some("tensor=8,pipeline=1,data=4")
        );
        assert_eq!((membership.all_reduce, facts.step), (Some(13 << 30), Some(0.25)));
        let closeness = Closeness {
            required: Some("topology.kubernetes.io/zone".into()),
            preferred: vec!["muster.dev/rack".into(), "muster.dev/block".into()],
            spread: None,
            slice: Some(Slice { size: 8, level: "kubernetes.io/hostname".into() }),
        };
        assert_eq!(membership.closeness, closeness);
        assert_eq!((facts.member.rank, facts.member.gpu_demand()), (2, GpuDemand::Share(250)));
        assert_eq!((facts.reservation.as_deref(), facts.limit), (Some("night"), Some(5_400_000)));
        let restart = Restart { checkpoint_every: Some(600_000), movable: true, never: false };
        assert_eq!(facts.restart, restart);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_name() {
        let facts = with(json!({
            "muster.dev/gang": "My gang", "muster.dev/gang-min-available": "-1", "muster.dev/rank": "first",
            "muster.dev/required-topology": "", "muster.dev/preferred-topology": "muster.dev/rack,,",
            "muster.dev/topology-slice": "0@host", "muster.dev/gang-spares": "some",
            "muster.dev/gpu-share": "1001", "muster.dev/time-limit": "-5m", "muster.dev/eviction": "seldom",
            "muster.dev/group-shape": "tp=8,xp=2", "muster.dev/all-reduce-bytes": "much", "muster.dev/step-seconds": "-1", "muster.dev/wait-for-nearer": "-1m",
        }));
        assert_eq!(facts.step, None);
        let names: Vec<&str> = facts
            .problems
            .iter()
            .map(|problem| match problem {
                Problem::Unreadable { name, .. } => *name,
                _ => "",
            })
            .collect();
        let all = [
            annotations::GANG,
            annotations::GANG_MIN_AVAILABLE,
            annotations::REQUIRED_LEVEL,
            annotations::PREFERRED_LEVELS,
            annotations::SLICE,
            annotations::SPARES,
            annotations::GROUP_SHAPE,
            annotations::ALL_REDUCE_BYTES,
            annotations::GPU_SHARE,
            annotations::RANK,
            annotations::TIME_LIMIT,
            annotations::EVICTION,
            annotations::WAIT_FOR_NEARER,
        ];
        assert_eq!(names, all);
        assert_eq!(
            said(&facts)[6],
            "muster.dev/group-shape is `tp=8,xp=2`; it must be ranks of each kind of group, such as \
             tensor=8,pipeline=2,data=4 (or tp, pp, dp; 1 where left out, never 0)"
        );
        assert_eq!(
            said(&facts)[8],
            "muster.dev/gpu-share is `1001`; it must be thousandths of a GPU, 1 to 1000"
        );
    }

    #[test]
    fn wishes_that_exclude_or_need_each_other_are_told() {
        let spec = json!({"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]});
        let facts = read(
            json!({"annotations": {"muster.dev/gpu-share": "500", "muster.dev/gang-min-available": "2"}}),
            &spec,
        );
        assert_eq!(facts.member.gpu_demand(), GpuDemand::Whole(1));
        let sentences = [
            "muster.dev/gang-min-available means nothing without muster.dev/gang; add it, or remove the other",
            "muster.dev/gpu-share and nvidia.com/gpu exclude each other; remove one of them",
        ];
        assert_eq!(said(&facts), sentences);
    }

    #[test]
    fn claims_are_read_with_the_objects_that_were_made_for_the_pod() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "resourceClaims": [
                {"name": "gpu", "resourceClaimName": "mine"}, {"name": "nic", "resourceClaimTemplateName": "t"},
                {"name": "disk", "resourceClaimTemplateName": "t"}, {"name": "none", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": [{"name": "nic", "resourceClaimName": "p-nic-x"}, {"name": "none"}]}});
        let facts = PodFacts::read(&serde_json::from_value(pod).unwrap());
        let claim = |name: &str, source| PodClaim { name: name.into(), source };
        assert_eq!(
            facts.claims,
            [
                claim("gpu", ClaimSource::Shared("mine".into())),
                claim("nic", ClaimSource::Own("p-nic-x".into())),
                claim("disk", ClaimSource::NotYet("t".into())),
            ]
        );
        assert_eq!(said(&facts), [""; 0]);
    }

    #[test]
    fn a_pod_behind_the_gang_gate_alone_can_be_planned() {
        let at_gate = |gates: &[&str]| {
            let gates: Vec<Value> = gates.iter().map(|name| json!({"name": name})).collect();
            read(json!({}), &json!({"containers": [], "schedulingGates": gates})).stage.waits_at_gang_gate()
        };
        assert!(at_gate(&["muster.dev/gang"]));
        assert!(!at_gate(&["muster.dev/gang", "kueue.x-k8s.io/admission"]), "Kueue goes first");
        assert!(!at_gate(&[]));
        let let_go = |only: &str| {
            let spec = json!({"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [only]}]}]}}}});
            let annotations = json!({"muster.dev/placed-on": "n", "muster.dev/gpu-indices": "1"});
            read(json!({"annotations": annotations}), &spec).steered_to
        };
        let steered = let_go("n").unwrap();
        assert_eq!((steered.node.as_str(), steered.gpu_indices.as_slice()), ("n", [1].as_slice()));
        assert_eq!(let_go("m"), None, "it can go elsewhere");
    }

    #[test]
    fn a_pod_is_gated_waits_has_a_node_leaves_or_has_ended() {
        let stage = |spec: Value, deleted: bool, phase: &str| {
            let mut pod = json!({"metadata": {"name": "p", "uid": "u", "annotations": {
                "muster.dev/gpu-indices": "1,3"}}, "spec": {"containers": []}, "status": {"phase": phase}});
            if let (Some(into), Value::Object(from)) = (pod["spec"].as_object_mut(), spec) {
                into.extend(from);
            }
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            PodFacts::read(&serde_json::from_value(pod).unwrap()).stage
        };
        assert_eq!(stage(json!({}), false, "Pending"), Stage::Waiting);
        let gate = json!({"schedulingGates": [{"name": "example.com/wait"}]});
        assert_eq!(stage(gate, false, "Pending"), Stage::Gated(vec!["example.com/wait".into()]));
        assert_eq!(stage(json!({}), true, "Pending"), Stage::Ended(Ending::Deleted));
        let on_with = |gpus: &str| {
            json!({"nodeName": "n", "containers": [
                {"name": "c", "resources": {"limits": {"nvidia.com/gpu": gpus}}}]})
        };
        let on = || on_with("2");
        let Stage::Bound(assignment) = stage(on(), false, "Running") else { panic!("it has a node") };
        assert_eq!((assignment.node.as_str(), assignment.gpu_indices.as_slice()), ("n", [1, 3].as_slice()));
        assert_eq!(stage(on(), true, "Running"), Stage::Leaving(assignment));
        let Stage::Bound(other) = stage(on_with("3"), false, "Running") else { panic!("it has a node") };
        assert_eq!(other.gpu_indices, [0u32; 0], "it has others than it says");
        assert_eq!(stage(on(), true, "Failed"), Stage::Ended(Ending::Failed));
        assert_eq!(stage(on(), false, "Succeeded"), Stage::Ended(Ending::Succeeded));
    }
}
