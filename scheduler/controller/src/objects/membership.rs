//! Which gang a pod belongs to, and how near to each other its members must be.
//!
//! A pod says so in the words of one of several systems; the first in this order counts: Muster's annotation
//! `muster.dev/gang`; its owner, where `muster.dev/gang-by` asks for it; Kubernetes' own `schedulingGroup`; the label of
//! the coscheduling plugin; the annotation of Volcano; the label of Kueue's pod groups.

use std::fmt;

use k8s_openapi::api::core::v1::PodSpec;
use muster_scheduler_api::annotations;
use muster_scheduler_core::{Closeness, PodKey, Slice};
use muster_scheduler_topology::GroupShape;

use super::groups::{GroupKey, GroupKind};
use super::wishes::{Problem, Wishes, bytes, level, levels, positive, slice};

const WHOLE_NUMBER: &str = "a whole number above 0";
const GROUPS: &str = "ranks of each kind of group, such as tensor=8,pipeline=2,data=4 (or tp, pp, dp; 1 where left out, never 0)";
const BYTES: &str = "bytes, such as 14000000000 or 13Gi";

/// Labels of pods by which other systems name a pod's group.
mod foreign {
    pub(super) const COSCHEDULING: &str = "scheduling.x-k8s.io/pod-group";
    pub(super) const VOLCANO: [&str; 2] =
        ["scheduling.k8s.io/group-name", "scheduling.volcano.sh/group-name"];
    pub(super) const JOB: &str = "batch.kubernetes.io/job-name";
    pub(super) const JOB_SET: &str = "jobset.sigs.k8s.io/jobset-name";
    pub(super) const REPLICATED_JOB: &str = "jobset.sigs.k8s.io/replicatedjob-name";
    pub(super) const LEADER_WORKER_SET: &str = "leaderworkerset.sigs.k8s.io/name";
    pub(super) const LEADER_WORKER_GROUP: &str = "leaderworkerset.sigs.k8s.io/group-index";
    pub(super) const LEADER_WORKER_SIZE: &str = "leaderworkerset.sigs.k8s.io/size";
    pub(super) const RAY_CLUSTER: &str = "ray.io/cluster";
}

/// What Kueue writes on pods.
mod kueue {
    pub(super) const GROUP: &str = "kueue.x-k8s.io/pod-group-name";
    pub(super) const COUNT: &str = "kueue.x-k8s.io/pod-group-total-count";
    /// Pods of such groups start before all of them exist.
    pub(super) const NO_GANG: [&str; 2] =
        ["kueue.x-k8s.io/pod-group-fast-admission", "kueue.x-k8s.io/pod-group-serving"];
    /// Kueue has chosen the places itself, by node selectors.
    pub(super) const PLACED: &str = "kueue.x-k8s.io/tas";
    pub(super) const REQUIRED: &str = "kueue.x-k8s.io/podset-required-topology";
    pub(super) const PREFERRED: &str = "kueue.x-k8s.io/podset-preferred-topology";
    pub(super) const SLICE_LEVEL: &str = "kueue.x-k8s.io/podset-slice-required-topology";
    pub(super) const SLICE_SIZE: &str = "kueue.x-k8s.io/podset-slice-size";
}

/// A gang by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GangKey {
    /// Namespace.
    pub namespace: String,
    /// Name: that of the written plan too. A pod without a gang is one whose name no gang can have.
    pub name: String,
}

impl fmt::Display for GangKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A pod's gang, as far as the pod says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The gang.
    pub gang: GangKey,
    /// Whether somebody named the gang; otherwise it is this pod alone.
    pub named: bool,
    /// How many pods must start together.
    pub min_available: usize,
    /// The object of another system that says more of the gang; without it nothing starts.
    pub described_by: Option<GroupPart>,
    /// How near to each other they must or should be.
    pub closeness: Closeness,
    /// Places held for members whose node fails.
    pub spares: u32,
    /// How their ranks are grouped.
    pub shape: Option<GroupShape>,
    /// Bytes that each rank sums up in a step.
    pub all_reduce: Option<u64>,
}

/// An object that describes a gang, or the part of it that is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPart {
    /// The object.
    pub group: GroupKey,
    /// The part; all of it when absent.
    pub part: Option<String>,
}

/// A gang as one of the systems names it.
struct Named {
    name: String,
    least: Option<u32>,
    described_by: Option<GroupPart>,
}

impl Membership {
    /// Whether the gang does without its members that have ended well; a batch Job that describes its gang says so itself.
    pub(crate) fn counts_ended(&self) -> bool {
        let by_job = self.described_by.as_ref().is_some_and(|part| part.group.kind == GroupKind::Job);
        self.named && !by_job
    }

    pub(super) fn read(pod: &PodKey, spec: &PodSpec, wishes: &mut Wishes<'_>) -> Self {
        let named = named(pod, spec, wishes);
        let least = wishes.read(annotations::GANG_MIN_AVAILABLE, WHOLE_NUMBER, positive);
        if named.is_none() && least.is_some_and(|least| least > 1) {
            let name = annotations::GANG_MIN_AVAILABLE;
            wishes.problems.push(Problem::Needs { name, needs: annotations::GANG });
        }
        let (is_named, of_gang) = (named.is_some(), named.as_ref().and_then(|named| named.least));
        let (name, described_by) = match named {
            Some(named) => (named.name, named.described_by),
            // Names of pods cannot hold a space, so a lone pod never meets a gang of its name.
            None => (format!("pod {}", pod.name), None),
        };
        Self {
            gang: GangKey { namespace: pod.namespace.clone(), name },
            named: is_named,
            min_available: least.or(of_gang).unwrap_or(1) as usize,
            described_by,
            closeness: closeness(wishes),
            spares: wishes.read(annotations::SPARES, "a whole number", |text| text.parse().ok()).unwrap_or(0),
            shape: wishes.read(annotations::GROUP_SHAPE, GROUPS, |text| text.parse().ok()),
            all_reduce: wishes.read(annotations::ALL_REDUCE_BYTES, BYTES, bytes),
        }
    }
}

fn named(pod: &PodKey, spec: &PodSpec, wishes: &mut Wishes<'_>) -> Option<Named> {
    if wishes.annotation(annotations::GANG).is_some() {
        let name = wishes.name(annotations::GANG);
        return name.map(|name| Named { name, least: None, described_by: None });
    }
    if let Some(kind) = wishes.annotation(annotations::GANG_BY) {
        return by_owner(pod, kind, wishes);
    }
    let native = spec.scheduling_group.as_ref().and_then(|group| group.pod_group_name.clone());
    if let Some(name) = native {
        return Some(described(pod, GroupKind::Native, &name, None));
    }
    if let Some(name) = wishes.label(foreign::COSCHEDULING) {
        return Some(described(pod, GroupKind::Coscheduling, name, None));
    }
    if let Some(name) = foreign::VOLCANO.iter().find_map(|annotation| wishes.annotation(annotation)) {
        return Some(described(pod, GroupKind::Volcano, name, None));
    }
    let name = wishes.label(kueue::GROUP)?;
    if kueue::NO_GANG.iter().any(|annotation| wishes.annotation(annotation) == Some("true")) {
        return None;
    }
    let least = wishes.read(kueue::COUNT, WHOLE_NUMBER, positive);
    Some(Named { name: format!("kueue.{name}"), least, described_by: None })
}

/// A gang because the pod's owner is one.
fn by_owner(pod: &PodKey, kind: &str, wishes: &mut Wishes<'_>) -> Option<Named> {
    let mut label = |name: &'static str| {
        let value = wishes.label(name);
        if value.is_none() {
            wishes.problems.push(Problem::Needs { name: annotations::GANG_BY, needs: name });
        }
        value
    };
    match kind {
        "Job" => Some(described(pod, GroupKind::Job, label(foreign::JOB)?, None)),
        "JobSet" => Some(described(pod, GroupKind::JobSet, label(foreign::JOB_SET)?, None)),
        "ReplicatedJob" => {
            let (set, part) = (label(foreign::JOB_SET)?, label(foreign::REPLICATED_JOB)?);
            Some(described(pod, GroupKind::JobSet, set, Some(part)))
        }
        "RayCluster" => Some(described(pod, GroupKind::RayCluster, label(foreign::RAY_CLUSTER)?, None)),
        "LeaderWorkerSet" => {
            let (set, group) = (label(foreign::LEADER_WORKER_SET)?, label(foreign::LEADER_WORKER_GROUP)?);
            let least = wishes.read(foreign::LEADER_WORKER_SIZE, WHOLE_NUMBER, positive);
            Some(Named { name: format!("leaderworkerset.{set}.{group}"), least, described_by: None })
        }
        _ => {
            wishes.problems.push(Problem::Unreadable {
                name: annotations::GANG_BY,
                value: kind.to_owned(),
                expected: "Job, JobSet, ReplicatedJob, LeaderWorkerSet or RayCluster",
            });
            None
        }
    }
}

fn described(pod: &PodKey, kind: GroupKind, name: &str, part: Option<&str>) -> Named {
    let group = GroupKey { kind, namespace: pod.namespace.clone(), name: name.to_owned() };
    let suffix = part.map_or_else(String::new, |part| format!(".{part}"));
    Named {
        name: format!("{}.{name}{suffix}", kind.prefix()),
        least: None,
        described_by: Some(GroupPart { group, part: part.map(str::to_owned) }),
    }
}

fn closeness(wishes: &mut Wishes<'_>) -> Closeness {
    let closeness = Closeness {
        required: wishes.level(annotations::REQUIRED_LEVEL),
        preferred: wishes
            .read(annotations::PREFERRED_LEVELS, "node labels of levels, separated by commas", levels)
            .unwrap_or_default(),
        spread: wishes.level(annotations::SPREAD_LEVEL),
        slice: wishes.read(annotations::SLICE, "SIZE@LEVEL, such as 8@kubernetes.io/hostname", slice),
    };
    if closeness == Closeness::default() && wishes.label(kueue::PLACED) != Some("true") {
        return closeness_of_kueue(wishes);
    }
    closeness
}

/// What was asked of Kueue, where Kueue itself leaves the places to the scheduler.
fn closeness_of_kueue(wishes: &mut Wishes<'_>) -> Closeness {
    let size = wishes.read(kueue::SLICE_SIZE, WHOLE_NUMBER, positive);
    let place = wishes.annotation(kueue::SLICE_LEVEL).and_then(level);
    Closeness {
        required: wishes.annotation(kueue::REQUIRED).and_then(level),
        preferred: wishes.annotation(kueue::PREFERRED).and_then(level).into_iter().collect(),
        spread: None,
        slice: size.zip(place).map(|(size, level)| Slice { size, level }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::PodFacts;

    fn facts(pod: Value) -> PodFacts {
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        (pod.metadata.name, pod.metadata.namespace) = (Some("p".into()), Some("team".into()));
        PodFacts::read(&pod)
    }

    fn of(pod: Value) -> Membership {
        let facts = facts(pod);
        assert_eq!(facts.problems, []);
        facts.membership
    }

    fn object(membership: &Membership) -> String {
        membership.described_by.as_ref().unwrap().group.to_string()
    }

    #[test]
    fn pod_groups_are_named_in_the_words_of_their_systems() {
        let coscheduling = of(json!({"metadata": {"labels": {"scheduling.x-k8s.io/pod-group": "g"}}}));
        assert_eq!((coscheduling.gang.name.as_str(), coscheduling.named), ("podgroup.g", true));
        assert_eq!(object(&coscheduling), "PodGroup.scheduling.x-k8s.io team/g");
        let volcano = of(json!({"metadata": {"annotations": {"scheduling.k8s.io/group-name": "g"}}}));
        assert_eq!(object(&volcano), "PodGroup.scheduling.volcano.sh team/g");
        let native = of(json!({"spec": {"containers": [], "schedulingGroup": {"podGroupName": "g"}}}));
        assert_eq!(object(&native), "PodGroup.scheduling.k8s.io team/g");
        let ours = json!({"metadata": {
            "labels": {"scheduling.x-k8s.io/pod-group": "g"}, "annotations": {"muster.dev/gang": "mine"}}});
        assert_eq!((of(ours.clone()).gang.name.as_str(), of(ours).described_by), ("mine", None));
    }

    #[test]
    fn owners_are_gangs_only_when_asked_for() {
        let labels = json!({"batch.kubernetes.io/job-name": "set-workers-0", "jobset.sigs.k8s.io/jobset-name": "set",
            "jobset.sigs.k8s.io/replicatedjob-name": "workers", "ray.io/cluster": "ray",
            "leaderworkerset.sigs.k8s.io/name": "lws", "leaderworkerset.sigs.k8s.io/group-index": "2"});
        assert!(!of(json!({"metadata": {"labels": labels}})).named);
        let by = |kind: &str| {
            let annotations = json!({"muster.dev/gang-by": kind, "leaderworkerset.sigs.k8s.io/size": "4"});
            of(json!({"metadata": {"labels": labels, "annotations": annotations}}))
        };
        assert_eq!(
            (by("Job").gang.name, object(&by("Job"))),
            ("job.set-workers-0".into(), "Job.batch team/set-workers-0".into())
        );
        assert_eq!(object(&by("JobSet")), "JobSet.jobset.x-k8s.io team/set");
        let part = by("ReplicatedJob");
        assert_eq!(part.gang.name, "jobset.set.workers");
        assert_eq!(part.described_by.unwrap().part.as_deref(), Some("workers"));
        assert_eq!(object(&by("RayCluster")), "RayCluster.ray.io team/ray");
        let group = by("LeaderWorkerSet");
        assert_eq!((group.gang.name.as_str(), group.min_available), ("leaderworkerset.lws.2", 4));
    }

    #[test]
    fn owners_that_cannot_be_gangs_are_told() {
        let said = |kind: &str| {
            let facts = facts(json!({"metadata": {"annotations": {"muster.dev/gang-by": kind}}}));
            facts.problems[0].to_string()
        };
        assert_eq!(
            said("Job"),
            "muster.dev/gang-by means nothing without batch.kubernetes.io/job-name; add it, or remove the other"
        );
        assert_eq!(
            said("Deployment"),
            "muster.dev/gang-by is `Deployment`; it must be Job, JobSet, ReplicatedJob, LeaderWorkerSet or RayCluster"
        );
    }

    #[test]
    fn groups_of_kueue_are_gangs_near_each_other_as_asked() {
        let pod = |more: &str, placed: &str| {
            json!({"metadata": {
                "labels": {"kueue.x-k8s.io/queue-name": "q", "kueue.x-k8s.io/pod-group-name": "g", "kueue.x-k8s.io/tas": placed},
                "annotations": {"kueue.x-k8s.io/pod-group-total-count": "3", more: "true",
                    "kueue.x-k8s.io/podset-required-topology": "example.com/block",
                    "kueue.x-k8s.io/podset-slice-required-topology": "example.com/rack",
                    "kueue.x-k8s.io/podset-slice-size": "2"}}})
        };
        let gang = of(pod("x", "false"));
        assert_eq!((gang.gang.name.as_str(), gang.min_available), ("kueue.g", 3));
        assert_eq!(gang.closeness.required.as_deref(), Some("example.com/block"));
        assert_eq!(gang.closeness.slice, Some(Slice { size: 2, level: "example.com/rack".into() }));
        assert_eq!(of(pod("x", "true")).closeness, Closeness::default(), "Kueue has placed it");
        assert!(!of(pod("kueue.x-k8s.io/pod-group-fast-admission", "false")).named);
    }
}
