//! What the watches say.

use std::collections::{BTreeMap, BTreeSet};

use muster_scheduler_core::{GangName, Node, PodKey};
use muster_scheduler_topology::import::TopologySources;

use super::{Binding, Durable, ExtenderCore, GangKey, GangState, Known, PodSeen, PodState, Slot, Time};
use crate::plans::Plans;

impl<P: Plans> ExtenderCore<P> {
    /// A node appeared or changed.
    pub fn node_seen(&mut self, now: Time, node: Node) {
        let (name, usable) = (node.name.clone(), node.schedulable);
        if self.plans.set_node(node) {
            self.taken += 1;
            self.freed += 1;
            if !usable {
                self.break_slots(now, &name);
            }
        }
    }

    /// A node is gone.
    pub fn node_gone(&mut self, now: Time, name: &str) {
        if self.plans.knows(name) {
            self.plans.remove_node(name);
            self.taken += 1;
            self.break_slots(now, name);
        }
    }

    /// What was written down about where nodes are, beside their labels, has changed.
    pub fn places_described(&mut self, sources: TopologySources) {
        self.plans.set_topology_sources(sources);
        self.taken += 1;
        self.freed += 1;
    }

    /// Slots on a node that takes no pods any more are given up, but for those whose binding may land.
    fn break_slots(&mut self, now: Time, node: &str) {
        // Gangs that are not open have bound pods only.
        let keys: Vec<GangKey> = self.open.iter().cloned().collect();
        for key in keys {
            let Some(gang) = self.gangs.get(&key) else { continue };
            let broken: Vec<String> = gang
                .slots
                .iter()
                .filter(|(name, slot)| {
                    slot.assignment.node == node
                        && !self.pod(&key, name).is_some_and(|known| {
                            known.bound_to().is_some()
                                || known.seen.member.uid == slot.assignment.uid && known.binding.may_land()
                        })
                })
                .map(|(name, _)| name.clone())
                .collect();
            if broken.is_empty() {
                continue;
            }
            for name in broken {
                self.drop_slot(now, &key, &name, "its node is gone or takes no pods any more");
            }
            self.write_if_gang(&key);
        }
    }

    /// Writes the reservation anew.
    pub(super) fn write_if_gang(&mut self, key: &GangKey) {
        if let Some(gang) = self.gangs.get_mut(key).filter(|gang| gang.template.is_some()) {
            gang.must_write();
            self.proceed(key);
        }
    }

    /// Gives a slot up; a bind call that waits for it fails. The reservation must be written anew.
    pub(super) fn drop_slot(&mut self, now: Time, key: &GangKey, name: &str, why: &str) {
        let pod = PodKey::new(&key.namespace, name);
        self.release(&pod);
        if let Some(known) = self.pods.get_mut(&pod)
            && let Binding::Queued { attempt, .. } = known.binding
        {
            known.failure = Some((attempt, format!("the place of pod {pod} was given up: {why}")));
            known.binding = Binding::Idle;
        }
        let Some(gang) = self.gangs.get_mut(key) else { return };
        self.open.insert(key.clone());
        let slot = gang.slots.remove(name);
        gang.progress = now;
        gang.forget_plans();
        if let Some(slot) = slot.filter(|slot| slot.vacant.is_none()) {
            self.haunt(key, slot.assignment);
        }
    }

    /// A pod appeared or changed.
    pub fn pod_seen(&mut self, now: Time, pod: PodSeen) {
        let key = pod.key.clone();
        if self.pods.get(&key).is_some_and(|known| known.seen.member.uid != pod.member.uid) {
            self.pod_left(now, &key, true);
        }
        if let PodState::Ended { succeeded_by_another } = pod.state {
            if self.pods.contains_key(&key) {
                self.pod_left(now, &key, succeeded_by_another);
            }
            if !succeeded_by_another {
                self.ended_well(pod);
            }
            return;
        }
        let done_in = self.ended.replaced(&key);
        self.count_done(done_in);
        let gang_key = match &pod.gang {
            Some(gang) => GangKey::new(&key.namespace, &gang.name),
            // Names of gangs hold no space.
            None => GangKey::new(&key.namespace, format!("pod {}", key.name)),
        };
        if self.pods.get(&key).is_some_and(|known| known.gang != gang_key) {
            // It changed gangs, which is as good as another pod.
            self.pod_left(now, &key, false);
        }
        self.join(&gang_key, &pod, now);
        if let PodState::Bound(assignment) = &pod.state {
            self.bound_in_truth(now, &gang_key, &pod, assignment.clone());
        }
        self.by_uid.insert(pod.member.uid.clone(), key.clone());
        let bound = match &pod.state {
            PodState::Bound(assignment) => Some(Binding::Bound { node: assignment.node.clone() }),
            PodState::Waiting | PodState::Ended { .. } => None,
        };
        let Some(known) = self.pods.get_mut(&key) else {
            let binding = bound.unwrap_or(Binding::Idle);
            self.pods.insert(key, Known { seen: pod, gang: gang_key, binding, failure: None });
            return;
        };
        match bound {
            Some(bound) => known.binding = bound,
            // A late watch does not undo a binding.
            None if matches!(known.seen.state, PodState::Bound(_)) => return,
            None => {}
        }
        known.seen = pod;
    }

    fn join(&mut self, key: &GangKey, pod: &PodSeen, now: Time) {
        let epoch = self.seen.get(key).map_or(0, |seen| seen.epoch);
        let gang = self.gangs.entry(key.clone()).or_insert_with(|| GangState {
            template: pod.gang.clone(),
            members: BTreeSet::new(),
            owners: BTreeSet::new(),
            done: 0,
            held: BTreeMap::new(),
            queued: BTreeSet::new(),
            since: pod.created,
            plans: Vec::new(),
            refusals: Vec::new(),
            jobs: BTreeMap::new(),
            slots: BTreeMap::new(),
            ghosts: Vec::new(),
            epoch,
            durable: Durable::Yes,
            progress: now,
            marked: false,
        });
        self.open.insert(key.clone());
        gang.since = gang.since.min(pod.created);
        let grown = gang.members.insert(pod.key.name.clone());
        match &pod.held {
            Some(why) => gang.held.insert(pod.key.name.clone(), why.clone()),
            None => gang.held.remove(&pod.key.name),
        };
        if pod.gang.is_some() && gang.template != pod.gang {
            gang.template.clone_from(&pod.gang);
            gang.forget_plans();
        }
        if grown {
            gang.forget_plans();
        }
        if pod.owner.as_ref().is_some_and(|owner| gang.owners.insert(owner.clone())) {
            let name = GangName { namespace: key.namespace.clone(), name: key.name.clone() };
            self.count_done(Some(name));
        }
    }

    /// A member is done: nobody will bring it back, and its gang does without it.
    fn ended_well(&mut self, pod: PodSeen) {
        if let (Some(gang), Some(owner)) = (pod.gang, pod.owner) {
            let gang = GangName { namespace: gang.namespace.clone(), name: gang.name.clone() };
            self.ended.well(pod.key, pod.member.uid, gang.clone(), owner);
            self.count_done(Some(gang));
        }
    }

    /// Counts anew those of a gang that are done.
    fn count_done(&mut self, gang: Option<GangName>) {
        let Some(name) = gang else { return };
        let key = GangKey::new(&name.namespace, &name.name);
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        let done = self.ended.count(&name, gang.owners.iter().map(String::as_str));
        if gang.done != done {
            gang.done = done;
            gang.forget_plans();
            self.open.insert(key);
        }
    }

    fn bound_in_truth(
        &mut self,
        now: Time,
        key: &GangKey,
        pod: &PodSeen,
        assignment: muster_scheduler_core::Assignment,
    ) {
        if let Some(gang) = self.gangs.get_mut(key) {
            let slot = Slot { rank: pod.member.rank, assignment: assignment.clone(), vacant: None };
            gang.slots.insert(pod.key.name.clone(), slot);
            let had = self.pods.get(&pod.key).is_some_and(|known| known.bound_to().is_some());
            if !had {
                gang.progress = now;
                gang.forget_plans();
            }
        }
        self.record(pod.key.clone(), assignment);
    }

    /// A pod is gone from the API server.
    pub fn pod_gone(&mut self, now: Time, pod: &PodKey, uid: &str) {
        if self.pods.get(pod).is_some_and(|known| known.seen.member.uid == uid) {
            self.pod_left(now, pod, true);
        }
        let done_in = self.ended.gone(pod, uid);
        self.count_done(done_in);
    }

    /// Forgets a pod. A member of a gang may have a successor, for which its place is kept for a while.
    fn pod_left(&mut self, now: Time, pod: &PodKey, successor: bool) {
        let Some(known) = self.pods.remove(pod) else { return };
        self.by_uid.remove(&known.seen.member.uid);
        let key = known.gang;
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        self.open.insert(key.clone());
        gang.members.remove(&pod.name);
        gang.held.remove(&pod.name);
        gang.forget_plans();
        gang.marked = false;
        let usable = gang.slots.get(&pod.name).is_some_and(|slot| self.plans.usable(&slot.assignment.node));
        let in_gang = gang.template.is_some();
        match gang.slots.get_mut(&pod.name) {
            Some(slot) if successor && usable && in_gang => slot.vacant = Some(now),
            _ => {
                gang.slots.remove(&pod.name);
                self.release(pod);
            }
        }
    }
}
