//! What was seen of nodes and pods, and what to do about it. No IO: decisions go out, results come in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use muster_scheduler_api::{GangReservation, ReservationPhase, annotations};
use muster_scheduler_core::{Assignment, Gang, Ledger, Member, Placement, PodKey, Waiting as Reason};

use crate::convert;

/// How long a gang may be incomplete before its pods are told so: its controller is creating them one by one.
const PATIENCE: SignedDuration = SignedDuration::from_secs(2);

/// What to do now, and when to ask again although nothing was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decisions {
    /// To carry out.
    pub now: Vec<Decision>,
    /// Ask again after this long.
    pub again_in: Option<SignedDuration>,
}

/// Something to carry out.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Bind these pods, after the plan has been written when there are several.
    Bind(Binding),
    /// Tell a pod why it waits.
    Explain {
        /// The pod.
        pod: PodKey,
        /// One sentence.
        message: String,
    },
}

/// Pods of one gang with their places.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// Namespace.
    pub namespace: String,
    /// Name of the gang, or of the pod when it has none.
    pub gang: String,
    /// Whether the plan must be written down first: it binds several pods, or is part of a gang.
    pub durable: bool,
    /// The controller that owns the pods, as owner of the written plan.
    pub owner: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>,
    /// The places.
    pub placement: Placement,
}

#[derive(Debug, Clone)]
struct Waiting {
    member: Member,
    gang: Option<(String, usize)>,
    priority: i32,
    created: i64,
    owner: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>,
    told: Option<String>,
    binding: bool,
}

/// The planner's view of the cluster.
#[derive(Debug, Default)]
pub struct Planner {
    scheduler_names: BTreeSet<String>,
    ledger: Ledger,
    waiting: BTreeMap<PodKey, Waiting>,
    /// Gang and node of each member that has a place.
    placed: BTreeMap<PodKey, (String, String)>,
}

impl Planner {
    /// A planner for pods of these `spec.schedulerName`s.
    pub fn new(scheduler_names: impl IntoIterator<Item = String>) -> Self {
        Self { scheduler_names: scheduler_names.into_iter().collect(), ..Self::default() }
    }

    /// A node appeared or changed.
    pub fn node_seen(&mut self, node: &core::Node) {
        self.ledger.set_node(convert::node(node));
    }

    /// A node is gone.
    pub fn node_gone(&mut self, name: &str) {
        self.ledger.remove_node(name);
    }

    /// A pod appeared or changed.
    pub fn pod_seen(&mut self, pod: &core::Pod) {
        let key = key_of(pod);
        if let Some(assignment) = convert::assignment(pod) {
            self.waiting.remove(&key);
            if let Some(gang) = convert::annotation(pod, annotations::GANG) {
                self.placed.insert(key.clone(), (gang.to_owned(), assignment.node.clone()));
            }
            // Slots that nobody wrote down stay the node's business.
            self.ledger.record(key, assignment);
            return;
        }
        let spec = pod.spec.clone().unwrap_or_default();
        let bound = spec.node_name.as_deref().is_some_and(|name| !name.is_empty());
        let ended = pod
            .status
            .as_ref()
            .is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")));
        if bound || ended || pod.metadata.deletion_timestamp.is_some() {
            self.forget(&key);
            return;
        }
        let scheduler =
            spec.scheduler_name.as_deref().unwrap_or(muster_scheduler_api::DEFAULT_SCHEDULER_NAME);
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if gated || !self.scheduler_names.contains(scheduler) {
            return;
        }
        self.wait(key, pod, spec.priority.unwrap_or(0));
    }

    /// A pod is gone.
    pub fn pod_gone(&mut self, pod: &core::Pod) {
        let key = key_of(pod);
        // A later pod of the same name may already be here.
        let uid = pod.metadata.uid.as_deref();
        let same_waiting =
            self.waiting.get(&key).is_some_and(|waiting| Some(waiting.member.uid.as_str()) == uid);
        let same_placed =
            self.ledger.assignment(&key).is_some_and(|assignment| Some(assignment.uid.as_str()) == uid);
        if same_waiting || same_placed {
            self.forget(&key);
        }
    }

    /// A plan that an earlier run wrote down and may not have finished: its unbound pods keep their places.
    pub fn restore(&mut self, reservation: &GangReservation) -> Option<Binding> {
        if reservation.status.as_ref().and_then(|status| status.phase) == Some(ReservationPhase::Bound) {
            return None;
        }
        let namespace = reservation.metadata.namespace.clone().unwrap_or_default();
        let mut places = Vec::new();
        for reserved in &reservation.spec.members {
            let key = PodKey::new(&namespace, &reserved.pod);
            let Some(waiting) = self.waiting.get(&key).filter(|waiting| waiting.member.uid == reserved.uid)
            else {
                continue;
            };
            places.push((
                key,
                Assignment {
                    uid: reserved.uid.clone(),
                    node: reserved.node.clone(),
                    resources: waiting.member.requests.clone(),
                    gpu_indices: reserved.gpu_indices.clone(),
                    gpu_share: 0,
                },
            ));
        }
        let placement = Placement(places);
        if placement.0.is_empty() {
            return None;
        }
        if let Err(error) = self.ledger.take(&placement) {
            tracing::info!(%error, gang = reservation.spec.gang, "the plan of the last run no longer fits; planning anew");
            return None;
        }
        let owner = self.mark_binding(&placement);
        Some(Binding { namespace, gang: reservation.spec.gang.clone(), durable: true, owner, placement })
    }

    /// What to do now. Places are taken on the ledger at once, so that nothing is planned twice.
    pub fn decide(&mut self, now: Timestamp) -> Decisions {
        let mut decisions = Vec::new();
        let mut again_in: Option<SignedDuration> = None;
        for gang in self.gangs() {
            match self.ledger.place(&gang) {
                Ok(placement) => {
                    if let Err(error) = self.ledger.take(&placement) {
                        tracing::error!(%error, gang = gang.name, "the ledger refused its own plan");
                        continue;
                    }
                    let member_of_gang = self.is_gang_member(&placement);
                    let owner = self.mark_binding(&placement);
                    decisions.push(Decision::Bind(Binding {
                        namespace: gang.namespace,
                        gang: gang.name,
                        durable: member_of_gang,
                        owner,
                        placement,
                    }));
                }
                Err(reason) => {
                    let early = match reason {
                        Reason::ForMembers { .. } => self.patience_left(&gang, now),
                        Reason::Impossible { .. } | Reason::UnknownLevel { .. } | Reason::ForRoom { .. } => {
                            None
                        }
                    };
                    match early {
                        Some(left) => again_in = Some(again_in.map_or(left, |other| other.min(left))),
                        None => decisions.extend(self.explain(&gang, &reason.to_string())),
                    }
                }
            }
        }
        Decisions { now: decisions, again_in }
    }

    /// How long the gang's pods are still spared the news that others are missing.
    fn patience_left(&self, gang: &Gang, now: Timestamp) -> Option<SignedDuration> {
        let keys = gang.waiting.iter().map(|member| PodKey::new(&gang.namespace, &member.name));
        let newest = keys.filter_map(|key| Some(self.waiting.get(&key)?.created)).max()?;
        // Creation times are whole seconds.
        let left =
            SignedDuration::from_secs(newest + 1) + PATIENCE - now.duration_since(Timestamp::UNIX_EPOCH);
        (left > SignedDuration::ZERO).then_some(left)
    }

    /// A pod could not be bound: its place is free again, and it is planned anew.
    pub fn binding_failed(&mut self, pod: &PodKey) {
        if let Some(waiting) = self.waiting.get_mut(pod) {
            waiting.binding = false;
            self.ledger.release(pod);
            self.placed.remove(pod);
        }
    }

    fn wait(&mut self, key: PodKey, pod: &core::Pod, priority: i32) {
        let member = convert::member(pod);
        if self.waiting.get(&key).is_some_and(|known| known.member.uid != member.uid) {
            self.forget(&key);
        }
        let gang = convert::annotation(pod, annotations::GANG).map(|name| {
            let least =
                convert::annotation(pod, annotations::GANG_MIN_AVAILABLE).and_then(|text| text.parse().ok());
            (name.to_owned(), least.unwrap_or(1))
        });
        let known = self.waiting.remove(&key);
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let waiting = Waiting {
            member,
            gang,
            priority,
            created: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            owner: owners.rfind(|owner| owner.controller == Some(true)).cloned(),
            told: known.as_ref().and_then(|known| known.told.clone()),
            binding: known.is_some_and(|known| known.binding),
        };
        self.waiting.insert(key, waiting);
    }

    /// Gangs in the order in which they are tried: priority, then age, then name.
    fn gangs(&self) -> Vec<Gang> {
        let mut gangs: BTreeMap<(String, String), (i32, i64, Gang)> = BTreeMap::new();
        for (key, waiting) in self.waiting.iter().filter(|(_, waiting)| !waiting.binding) {
            // Names of pods cannot hold a space, so a lone pod never meets a gang of its name.
            let (name, least) = waiting.gang.clone().unwrap_or_else(|| (format!("pod {}", key.name), 1));
            let entry = gangs.entry((key.namespace.clone(), name.clone())).or_insert_with(|| {
                let placed_on = self.members_placed(&key.namespace, &name);
                let gang = Gang {
                    namespace: key.namespace.clone(),
                    name,
                    min_available: least,
                    placed_on,
                    ..Gang::default()
                };
                (waiting.priority, waiting.created, gang)
            });
            entry.0 = entry.0.max(waiting.priority);
            entry.1 = entry.1.min(waiting.created);
            entry.2.min_available = entry.2.min_available.max(least);
            entry.2.waiting.push(waiting.member.clone());
        }
        let mut gangs: Vec<_> = gangs.into_values().collect();
        gangs.sort_by_key(|(priority, created, _)| (std::cmp::Reverse(*priority), *created));
        for (_, _, gang) in &mut gangs {
            gang.waiting.sort_by(|left, right| (left.rank, &left.name).cmp(&(right.rank, &right.name)));
        }
        gangs.into_iter().map(|(_, _, gang)| gang).collect()
    }

    fn members_placed(&self, namespace: &str, gang: &str) -> Vec<String> {
        let own = self.placed.iter().filter(|(key, (name, _))| key.namespace == namespace && name == gang);
        own.map(|(_, (_, node))| node.clone()).collect()
    }

    fn is_gang_member(&self, placement: &Placement) -> bool {
        placement.0.iter().any(|(pod, _)| self.waiting.get(pod).is_some_and(|waiting| waiting.gang.is_some()))
    }

    fn mark_binding(
        &mut self,
        placement: &Placement,
    ) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
        let mut owner = None;
        for (pod, assignment) in &placement.0 {
            if let Some(waiting) = self.waiting.get_mut(pod) {
                waiting.binding = true;
                owner = waiting.owner.clone().or(owner);
                if let Some((gang, _)) = &waiting.gang {
                    self.placed.insert(pod.clone(), (gang.clone(), assignment.node.clone()));
                }
            }
        }
        owner
    }

    fn explain(&mut self, gang: &Gang, message: &str) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for member in &gang.waiting {
            let pod = PodKey::new(&gang.namespace, &member.name);
            if let Some(waiting) = self.waiting.get_mut(&pod)
                && waiting.told.as_deref() != Some(message)
            {
                waiting.told = Some(message.to_owned());
                decisions.push(Decision::Explain { pod, message: message.to_owned() });
            }
        }
        decisions
    }

    fn forget(&mut self, key: &PodKey) {
        self.waiting.remove(key);
        self.placed.remove(key);
        self.ledger.release(key);
    }
}

fn key_of(pod: &core::Pod) -> PodKey {
    PodKey::new(
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_scheduler_api::{GangReservationSpec, ReservedMember};
    use serde_json::json;

    fn node(name: &str, gpus: u32) -> core::Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"nvidia.com/gpu": gpus.to_string(), "cpu": "8", "pods": "110"},
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap()
    }

    fn pod(gang: &str, index: u32, of: u32, node: Option<&str>) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("{gang}-{index}"), "namespace": "a", "uid": format!("{gang}-{index}-uid"),
                "annotations": {"muster.dev/gang": gang, "muster.dev/gang-min-available": of.to_string(), "muster.dev/rank": index.to_string()}},
            "spec": {"schedulerName": "muster", "nodeName": node,
                "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
            "status": {"phase": "Pending"},
        }))
        .unwrap()
    }

    fn planner(gpus: u32) -> Planner {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.node_seen(&node("n0", gpus));
        planner
    }

    fn bound(decisions: &[Decision]) -> Vec<usize> {
        decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Bind(binding) => Some(binding.placement.0.len()),
                Decision::Explain { .. } => None,
            })
            .collect()
    }

    fn decide(planner: &mut Planner) -> Vec<Decision> {
        planner.decide(Timestamp::MAX).now
    }

    #[test]
    fn a_gang_is_bound_once_its_last_pod_is_there() {
        let mut planner = planner(4);
        for index in 0..3 {
            planner.pod_seen(&pod("g", index, 4, None));
            assert_eq!(bound(&planner.decide(Timestamp::UNIX_EPOCH).now), [0usize; 0]);
        }
        planner.pod_seen(&pod("g", 3, 4, None));
        assert_eq!(bound(&decide(&mut planner)), [4]);
        assert_eq!(decide(&mut planner), [], "nothing is decided twice");
    }

    #[test]
    fn a_pod_is_told_once_why_it_waits_and_starts_when_room_is_made() {
        let mut planner = planner(2);
        let first = pod("a", 0, 1, Some("n0"));
        planner.pod_seen(&first);
        for index in 0..2 {
            planner.pod_seen(&pod("b", index, 2, None));
        }
        assert_eq!(decide(&mut planner).len(), 2);
        assert_eq!(decide(&mut planner), []);
        planner.pod_gone(&first);
        assert_eq!(bound(&decide(&mut planner)), [2]);
    }

    #[test]
    fn a_failed_binding_gives_its_place_back() {
        let mut planner = planner(1);
        planner.pod_seen(&pod("a", 0, 1, None));
        assert_eq!(bound(&decide(&mut planner)), [1]);
        planner.binding_failed(&PodKey::new("a", "a-0"));
        assert_eq!(bound(&decide(&mut planner)), [1]);
    }

    #[test]
    fn a_restart_finishes_the_plan_that_was_written() {
        let mut planner = planner(4);
        planner.pod_seen(&pod("g", 0, 2, Some("n0")));
        planner.pod_seen(&pod("g", 1, 2, None));
        let member = |index: u32| ReservedMember {
            pod: format!("g-{index}"),
            uid: format!("g-{index}-uid"),
            node: "n0".into(),
            gpu_indices: vec![index + 2],
        };
        let mut reservation = GangReservation::new(
            "g",
            GangReservationSpec { gang: "g".into(), epoch: 1, members: vec![member(0), member(1)] },
        );
        reservation.metadata.namespace = Some("a".into());
        let binding = planner.restore(&reservation).unwrap();
        assert_eq!(binding.placement.0.len(), 1, "only the pod that is not bound yet");
        assert_eq!(binding.placement.0[0].1.gpu_indices, [3]);
        assert_eq!(decide(&mut planner), []);
    }

    #[test]
    fn a_deleted_pods_successor_of_the_same_name_is_another_pod() {
        let mut planner = planner(1);
        let old = pod("a", 0, 1, Some("n0"));
        planner.pod_seen(&old);
        let mut new = pod("a", 0, 1, None);
        new.metadata.uid = Some("later".into());
        planner.pod_gone(&old);
        planner.pod_seen(&new);
        planner.pod_gone(&old);
        assert_eq!(bound(&decide(&mut planner)), [1]);
    }

    #[test]
    fn an_incomplete_gang_is_told_so_only_after_a_while() {
        let mut planner = planner(4);
        planner.pod_seen(&pod("g", 0, 2, None));
        let early = planner.decide(Timestamp::UNIX_EPOCH);
        assert_eq!((early.now.len(), early.again_in), (0, Some(SignedDuration::from_secs(3))));
        let late = planner.decide(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(3));
        assert_eq!((late.now.len(), late.again_in), (1, None));
    }
}
