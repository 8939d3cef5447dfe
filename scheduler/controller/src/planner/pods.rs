//! What the planner knows of each pod and of the gang that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_scheduler_api::{DEFAULT_QUEUE, annotations, labels};
use muster_scheduler_core::{Closeness, Gang, Member, PodKey, Slice};
use muster_scheduler_queue::time::Milliseconds;

use crate::convert;

/// A gang by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GangKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for GangKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// How far a pod has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits for a place.
    Waiting,
    /// Its place is taken on the ledger; the binding is under way.
    Binding(String),
    /// It has a place.
    Placed(String),
    /// It ends: its room is not free yet, but its gang no longer counts on it.
    Leaving,
}

impl State {
    pub(crate) fn has_place(&self) -> bool {
        matches!(self, Self::Binding(_) | Self::Placed(_))
    }
}

/// A pod of a gang; a pod without one is a gang of its own.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) gang: GangKey,
    /// Whether the gang was named by someone, or is just this pod.
    pub(crate) named_gang: bool,
    pub(crate) member: Member,
    pub(crate) min_available: usize,
    pub(crate) priority: i32,
    /// Seconds since 1970.
    pub(crate) created: i64,
    pub(crate) queue: String,
    pub(crate) user: String,
    pub(crate) limit: Option<Milliseconds>,
    pub(crate) reservation: Option<String>,
    pub(crate) closeness: Closeness,
    pub(crate) owner: Option<OwnerReference>,
    pub(crate) told: Option<String>,
    pub(crate) state: State,
}

impl PodView {
    pub(crate) fn new(key: &PodKey, pod: &core::Pod, state: State) -> Self {
        let gang = convert::annotation(pod, annotations::GANG);
        let least =
            convert::annotation(pod, annotations::GANG_MIN_AVAILABLE).and_then(|text| text.parse().ok());
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let spec = pod.spec.as_ref();
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).cloned();
        let declared =
            spec.and_then(|spec| spec.active_deadline_seconds).map(|seconds| seconds.saturating_mul(1000));
        Self {
            gang: GangKey {
                namespace: key.namespace.clone(),
                // Names of pods cannot hold a space, so a lone pod never meets a gang of its name.
                name: gang.map_or_else(|| format!("pod {}", key.name), str::to_owned),
            },
            named_gang: gang.is_some(),
            member: convert::member(pod),
            min_available: least.unwrap_or(1),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            created: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            queue: label(labels::QUEUE).unwrap_or_else(|| DEFAULT_QUEUE.to_owned()),
            user: key.namespace.clone(),
            limit: convert::annotation(pod, annotations::TIME_LIMIT).and_then(duration).or(declared),
            reservation: convert::annotation(pod, annotations::RESERVATION).map(str::to_owned),
            closeness: closeness(pod),
            owner: owners.rfind(|owner| owner.controller == Some(true)).cloned(),
            told: None,
            state,
        }
    }
}

/// Milliseconds of `90m`, `1h 30m` or `PT90M`.
fn duration(text: &str) -> Option<Milliseconds> {
    let length: SignedDuration = text.parse().ok()?;
    i64::try_from(length.as_millis()).ok().filter(|length| *length > 0)
}

fn closeness(pod: &core::Pod) -> Closeness {
    let annotation =
        |name: &str| convert::annotation(pod, name).map(str::trim).filter(|text| !text.is_empty());
    let slice = annotation(annotations::SLICE).and_then(|text| {
        let (size, level) = text.split_once('@')?;
        Some(Slice { size: size.trim().parse().ok()?, level: level.trim().to_owned() })
    });
    let preferred = annotation(annotations::PREFERRED_LEVELS).unwrap_or_default().split(',');
    Closeness {
        required: annotation(annotations::REQUIRED_LEVEL).map(str::to_owned),
        preferred: preferred.map(|level| level.trim().to_owned()).filter(|level| !level.is_empty()).collect(),
        spread: annotation(annotations::SPREAD_LEVEL).map(str::to_owned),
        slice,
    }
}

/// All pods of the planner, by name and by gang.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    pods: BTreeMap<PodKey, PodView>,
    gangs: BTreeMap<GangKey, BTreeSet<PodKey>>,
}

impl Pods {
    pub(crate) fn get(&self, key: &PodKey) -> Option<&PodView> {
        self.pods.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &PodKey) -> Option<&mut PodView> {
        self.pods.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: PodKey, pod: PodView) {
        self.remove(&key);
        self.gangs.entry(pod.gang.clone()).or_default().insert(key.clone());
        self.pods.insert(key, pod);
    }

    /// The gang that the pod was in.
    pub(crate) fn remove(&mut self, key: &PodKey) -> Option<GangKey> {
        let gang = self.pods.remove(key)?.gang;
        if let Some(members) = self.gangs.get_mut(&gang) {
            members.remove(key);
            if members.is_empty() {
                self.gangs.remove(&gang);
            }
        }
        Some(gang)
    }

    /// The pods of a gang.
    pub(crate) fn of<'a>(&'a self, gang: &GangKey) -> impl Iterator<Item = (&'a PodKey, &'a PodView)> {
        let keys = self.gangs.get(gang).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.pods.get(key)?)))
    }

    /// Whether a pod of the gang is in such a state.
    pub(crate) fn any(&self, gang: &GangKey, wanted: impl Fn(&State) -> bool) -> bool {
        self.of(gang).any(|(_, pod)| wanted(&pod.state))
    }

    /// The gang as the ledger plans it: its waiting pods in rank order, and where the others are.
    pub(crate) fn gang(&self, key: &GangKey) -> Gang {
        let mut gang = Gang { namespace: key.namespace.clone(), name: key.name.clone(), ..Gang::default() };
        for (_, pod) in self.of(key) {
            gang.min_available = gang.min_available.max(pod.min_available);
            match &pod.state {
                State::Waiting => gang.waiting.push(pod.member.clone()),
                State::Binding(node) | State::Placed(node) => gang.placed_on.push(node.clone()),
                State::Leaving => {}
            }
            if gang.closeness == Closeness::default() {
                gang.closeness = pod.closeness.clone();
            }
        }
        gang.waiting.sort_by(|left, right| (left.rank, &left.name).cmp(&(right.rank, &right.name)));
        gang
    }
}
