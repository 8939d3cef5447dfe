//! Filter and prioritize: which node the plan has for a pod. Takes nothing.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use muster_scheduler_core::{Gang, Placement, PodKey};

use super::{
    Binding, Cached, Effect, ExtenderCore, FilterStep, GangKey, GangState, Job, PLANS_KEPT, PlanJob, Planned,
    Scope, Verdict,
};
use crate::plans::{Plans, Refusal};
use crate::wire::{Offered, PodIdentity};

pub(super) const UNSEEN: &str = "the pod is not known yet: its creation has not been seen";
const PLANNING: &str = "planning: the gang's places are being worked out";

impl<P: Plans> ExtenderCore<P> {
    /// Which of the offered nodes the pod may have. Changes nothing but what is remembered of plans.
    pub fn filter(&mut self, pod: &PodIdentity<'_>, offered: &Offered<'_>) -> FilterStep {
        if !self.synced {
            return FilterStep::NotSynced;
        }
        let key = PodKey::new(&*pod.namespace, &*pod.name);
        let Some(known) = self.pods.get(&key).filter(|known| known.seen.member.uid == pod.uid) else {
            return FilterStep::Wait(UNSEEN);
        };
        if !known.seen.planned {
            return FilterStep::Answer(Verdict::Any);
        }
        let gang_key = known.gang.clone();
        let settled = known.bound_to().map(str::to_owned).or_else(|| {
            // A binding that may land is not given another node.
            let slot = self.gangs.get(&gang_key)?.slots.get(&key.name)?;
            (slot.assignment.uid == pod.uid).then(|| slot.assignment.node.clone())
        });
        if let Some(refusal) = self.incomplete(&gang_key) {
            return FilterStep::Answer(Verdict::Refused(refusal));
        }
        if let Some(node) = settled {
            if offered.contains(&node) {
                return FilterStep::Answer(Verdict::Node(node));
            }
            if known.binding.may_land() {
                return refused(format!(
                    "the pod has node {node}, or is being bound to it, and kube-scheduler does not offer it"
                ));
            }
        }
        // Taken out while it is worked on; every path puts it back.
        let Some(mut gang) = self.gangs.remove(&gang_key) else { return FilterStep::Wait(UNSEEN) };
        let step = self.planned_node(&gang_key, &mut gang, &key, offered);
        self.gangs.insert(gang_key, gang);
        step
    }

    /// The node that a filter call would answer, when it is known without planning.
    pub fn preferred(&mut self, pod: &PodIdentity<'_>, offered: &Offered<'_>) -> Option<String> {
        let before = self.effects.len();
        let step = self.filter(pod, offered);
        if self.effects.len() > before {
            // Prioritize is not worth planning for; the jobs are forgotten again.
            for effect in self.effects.split_off(before) {
                if let Effect::Plan(job) = effect {
                    self.forget_job(job.id);
                }
            }
        }
        match step {
            FilterStep::Answer(Verdict::Node(node)) => Some(node),
            _ => None,
        }
    }

    fn forget_job(&mut self, id: u64) {
        if let Some(gang) = self.jobs.remove(&id).and_then(|key| self.gangs.get_mut(&key)) {
            gang.jobs.remove(&id);
        }
    }

    fn planned_node(
        &mut self,
        key: &GangKey,
        gang: &mut GangState,
        pod: &PodKey,
        offered: &Offered<'_>,
    ) -> FilterStep {
        self.inherit(key, gang, pod);
        gang.plans = self.still_fitting(std::mem::take(&mut gang.plans));
        let places = gang.plans.iter().filter_map(|plan| node_of(&plan.placement, pod));
        let mut planned = None;
        for node in places {
            if offered.contains(node) {
                return FilterStep::Answer(Verdict::Node(node.to_owned()));
            }
            planned.get_or_insert_with(|| node.to_owned());
        }
        let (mut waiting, placed_on) = self.demand(key, gang);
        // A pod whose reserved node is not offered looks for another place beside the one that it has.
        let reserved = gang.slots.get(&pod.name).map(|slot| slot.assignment.node.clone());
        if self.placed(key, gang, &pod.name)
            && let Some(known) = self.pods.get(pod)
        {
            waiting = vec![known.seen.member.clone()];
        }
        let freed = self.freed;
        gang.refusals.retain(|(_, at, _)| *at == freed);
        let anywhere = gang.refusals.iter().find(|(scope, ..)| *scope == Scope::Anywhere);
        if let Some((_, _, refusal)) = anywhere {
            return FilterStep::Answer(Verdict::Refused(refusal.clone()));
        }
        let scope = if planned.is_some() || reserved.is_some() {
            Scope::Within(digest(offered))
        } else {
            Scope::Anywhere
        };
        if let Some((_, _, refusal)) = gang.refusals.iter().find(|(known, ..)| *known == scope) {
            let node = planned.or(reserved).unwrap_or_default();
            return refused(format!(
                "its planned node {node} is not offered by kube-scheduler, and on the {} nodes that are: {}",
                offered.len(),
                refusal.reason
            ));
        }
        let only = || offered.names().map(str::to_owned).collect();
        let ask = gang.ask(key, waiting, placed_on);
        self.request(key, gang, scope, ask, (scope != Scope::Anywhere).then(only));
        FilterStep::Wait(PLANNING)
    }

    /// Has a gang planned, unless that is under way.
    fn request(
        &mut self,
        key: &GangKey,
        gang: &mut GangState,
        scope: Scope,
        ask: Gang,
        offered: Option<BTreeSet<String>>,
    ) {
        let freed = self.freed;
        let uids: BTreeSet<String> = ask.waiting.iter().map(|member| member.uid.clone()).collect();
        let under_way =
            gang.jobs.values().any(|job| job.scope == scope && job.freed == freed && job.uids == uids);
        if !under_way && gang.jobs.len() < PLANS_KEPT {
            let id = self.number();
            gang.jobs.insert(id, Job { scope, freed, uids });
            self.jobs.insert(id, key.clone());
            self.effects.push(Effect::Plan(PlanJob {
                id,
                snapshot: self.plans.snapshot(&ask, &[]),
                gang: ask,
                offered,
            }));
        }
    }

    /// Why a gang cannot start whatever is free: its pods are not all there, or not as they must be.
    pub(super) fn incomplete(&self, key: &GangKey) -> Option<Refusal> {
        let gang = self.gangs.get(key)?;
        if let Some((pod, why)) = gang.held.first_key_value() {
            let reason = format!("pod {pod}: {why}");
            return Some(Refusal { reason, evictable: false, starts: None });
        }
        let (present, needed) = (gang.members.len(), gang.needed());
        if present >= needed || self.started(key, gang) {
            return None;
        }
        let reason = format!("{present}/{needed} members created");
        Some(Refusal { reason, evictable: false, starts: None })
    }

    /// Plans a gang before anybody asks, so that the answer and the reason are there at once; whether that was
    /// needed.
    pub(super) fn plan_ahead(&mut self, key: &GangKey) -> bool {
        if self.incomplete(key).is_some() {
            return false;
        }
        let Some(mut gang) = self.gangs.remove(key) else { return false };
        gang.plans = self.still_fitting(std::mem::take(&mut gang.plans));
        let freed = self.freed;
        gang.refusals.retain(|(_, at, _)| *at == freed);
        let (waiting, placed_on) = self.demand(key, &gang);
        let known =
            !gang.plans.is_empty() || gang.refusals.iter().any(|(scope, ..)| *scope == Scope::Anywhere);
        let needed = !waiting.is_empty() && !known && gang.jobs.is_empty();
        if needed {
            let ask = gang.ask(key, waiting, placed_on);
            self.request(key, &mut gang, Scope::Anywhere, ask, None);
        }
        self.gangs.insert(key.clone(), gang);
        needed
    }

    /// A successor of a vanished pod takes over its place: by name, else by rank.
    pub(super) fn inherit(&mut self, key: &GangKey, gang: &mut GangState, pod: &PodKey) {
        let Some(known) = self.pods.get(pod) else { return };
        let member = &known.seen.member;
        if self.placed(key, gang, &pod.name)
            || gang.plans.iter().any(|plan| node_of(&plan.placement, pod).is_some())
        {
            return;
        }
        let by_rank = |slot: &super::Slot| member.rank != u32::MAX && slot.rank == member.rank;
        let vacant = gang.slots.iter().filter(|(_, slot)| slot.vacant.is_some());
        let heir = vacant.filter(|(name, slot)| **name == pod.name || by_rank(slot));
        let Some((name, slot)) = heir.max_by_key(|(name, _)| **name == pod.name) else { return };
        let assignment = self.plans.assignment(member, &slot.assignment.node, &slot.assignment.gpu_indices);
        if assignment.resources != slot.assignment.resources || !self.plans.usable(&assignment.node) {
            return;
        }
        let instead_of = vec![PodKey::new(&key.namespace, name)];
        gang.plans.push(Cached {
            placement: Placement(vec![(pod.clone(), assignment)]),
            instead_of,
            fits_at: self.taken,
        });
    }

    /// Plans that the ledger still has room for.
    pub(super) fn still_fitting(&mut self, plans: Vec<Cached>) -> Vec<Cached> {
        let mut kept = Vec::with_capacity(plans.len());
        for mut plan in plans {
            if plan.fits_at != self.taken {
                let usable = plan.placement.0.iter().all(|(_, place)| self.plans.usable(&place.node));
                if !usable || !self.plans.fits(&plan.placement, &plan.instead_of) {
                    continue;
                }
                plan.fits_at = self.taken;
            }
            kept.push(plan);
        }
        kept
    }

    /// A gang has been planned.
    pub fn planned(&mut self, now: super::Time, planned: Planned) {
        let Some(key) = self.jobs.remove(&planned.id) else { return };
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        let Some(job) = gang.jobs.remove(&planned.id) else { return };
        match planned.outcome {
            Ok(placement) => {
                // Its pods may have come, gone or been placed meanwhile.
                let current = self.current(&key, &placement, None);
                let (waiting, _) = match self.gangs.get(&key) {
                    Some(gang) => self.demand(&key, gang),
                    None => return,
                };
                let complete =
                    waiting.iter().all(|member| job.uids.contains(&member.uid)) || job.uids.len() == 1;
                if let Some(gang) = self.gangs.get_mut(&key).filter(|_| current && complete) {
                    if gang.plans.len() >= PLANS_KEPT {
                        gang.plans.remove(1);
                    }
                    gang.plans.push(Cached { placement, instead_of: Vec::new(), fits_at: u64::MAX });
                }
            }
            Err(refusal) => {
                gang.refusals.push((job.scope, job.freed, refusal));
                if job.scope == Scope::Anywhere {
                    self.requeue_broken(now, &key);
                }
            }
        }
    }

    /// Whether the pods of a plan are there and still need its places. Only the one pod for which it is, if any,
    /// may move.
    pub(super) fn current(&self, key: &GangKey, placement: &Placement, moves: Option<&PodKey>) -> bool {
        let Some(gang) = self.gangs.get(key) else { return false };
        let alone = placement.0.len() == 1;
        placement.0.iter().all(|(pod, assignment)| {
            let idle = self.pods.get(pod).is_some_and(|known| {
                known.seen.member.uid == assignment.uid
                    && known.bound_to().is_none()
                    && known.binding == Binding::Idle
            });
            idle && (moves == Some(pod) || alone || !self.placed(key, gang, &pod.name))
        })
    }

    /// A gang of which nothing is bound and which cannot be repaired gives everything back and keeps its place
    /// in line.
    pub(super) fn requeue_broken(&mut self, now: super::Time, key: &GangKey) {
        let Some(gang) = self.gangs.get(key) else { return };
        if gang.slots.is_empty() || !self.short_of_places(key) || !self.nothing_bound(key, gang) {
            return;
        }
        self.release_all(now, key, "a lost place could not be made good");
    }
}

fn node_of<'a>(placement: &'a Placement, pod: &PodKey) -> Option<&'a str> {
    placement.0.iter().find(|(planned, _)| planned == pod).map(|(_, assignment)| assignment.node.as_str())
}

fn refused(reason: String) -> FilterStep {
    FilterStep::Answer(Verdict::Refused(Refusal { reason, evictable: false, starts: None }))
}

/// A number for a set of names, whatever their order.
fn digest(offered: &Offered<'_>) -> u64 {
    offered.names().fold(0, |sum, name| {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        sum.wrapping_add(hasher.finish())
    })
}
