//! Gangs that this process schedules itself (`schedulerName: muster`): the same plans, the same reservations, no
//! kube-scheduler in between.

use muster_scheduler_core::PodKey;

use super::{Binding, Cached, ExtenderCore, GangKey, Scope, Time};
use crate::plans::{Planner, Plans};

impl<P: Plans> ExtenderCore<P> {
    /// Plans and binds the pods that are marked as own, gang by gang in line. To be called after anything was
    /// seen; with `again` also what failed before is tried, which is for ticks.
    pub fn bind_own(&mut self, now: Time, again: bool) {
        if !self.synced {
            return;
        }
        for key in self.line() {
            let Some(gang) = self.gangs.get(&key) else { continue };
            let own = |name: &String| self.pod(&key, name).is_some_and(|known| known.seen.own);
            if !gang.members.iter().any(own) || self.incomplete(&key).is_some() {
                continue;
            }
            self.plan_own(now, &key);
            for (pod, node) in self.places_to_bind(&key, again) {
                // What comes of it is seen in the pod's state.
                let _ = self.start(now, &pod, &node);
            }
        }
    }

    /// Plans the gang's pods without a place, unless it is known that there is none.
    fn plan_own(&mut self, now: Time, key: &GangKey) {
        let Some(mut gang) = self.gangs.remove(key) else { return };
        gang.plans = self.still_fitting(std::mem::take(&mut gang.plans));
        for name in gang.members.clone() {
            self.inherit(key, &mut gang, &PodKey::new(&key.namespace, name));
        }
        let freed = self.freed;
        gang.refusals.retain(|(_, at, _)| *at == freed);
        let (waiting, placed_on) = self.demand(key, &gang);
        let mut refused = false;
        if !waiting.is_empty() && gang.plans.is_empty() && gang.refusals.is_empty() {
            let ask = gang.ask(key, waiting, placed_on);
            match self.plans.snapshot(&ask, &[]).place(&ask) {
                Ok(placement) => {
                    let fits_at = self.taken;
                    gang.plans.push(Cached { placement, instead_of: Vec::new(), fits_at });
                }
                Err(refusal) => {
                    gang.refusals.push((Scope::Anywhere, freed, refusal));
                    refused = true;
                }
            }
        }
        self.gangs.insert(key.clone(), gang);
        if refused {
            self.requeue_broken(now, key);
        }
    }

    /// Own pods that are planned or reserved, and for which nobody has asked yet.
    fn places_to_bind(&self, key: &GangKey, again: bool) -> Vec<(PodKey, String)> {
        let Some(gang) = self.gangs.get(key) else { return Vec::new() };
        let planned = gang.plans.iter().flat_map(|plan| plan.placement.0.iter());
        let planned = planned.map(|(pod, place)| (pod.clone(), place.uid.clone(), place.node.clone()));
        let reserved = gang.slots.iter().map(|(name, slot)| {
            let place = &slot.assignment;
            (PodKey::new(&key.namespace, name), place.uid.clone(), place.node.clone())
        });
        planned
            .chain(reserved)
            .filter(|(pod, uid, _)| {
                self.pods.get(pod).is_some_and(|known| {
                    known.seen.own
                        && known.seen.member.uid == *uid
                        && known.binding == Binding::Idle
                        && known.bound_to().is_none()
                        && (again || known.failure.is_none())
                })
            })
            .map(|(pod, _, node)| (pod, node))
            .collect()
    }
}
