//! What happens because time passes.

use muster_scheduler_core::PodKey;

use super::{Binding, Durable, Effect, ExtenderCore, GangKey, GangState, Time};
use crate::plans::Plans;

/// Gangs planned in one tick before anybody asks.
const PLANNED_AHEAD: usize = 16;

impl<P: Plans> ExtenderCore<P> {
    /// Lets time pass: to be called about once a second.
    pub fn tick(&mut self, now: Time) {
        if !self.synced {
            return;
        }
        let unsure: Vec<(PodKey, String)> = self
            .pods
            .iter()
            .filter_map(|(pod, known)| match &known.binding {
                Binding::Unsure { node, since } if since.plus(self.timing.unsure) <= now => {
                    Some((pod.clone(), node.clone()))
                }
                _ => None,
            })
            .collect();
        let mut unsure = unsure;
        unsure.sort();
        for (pod, node) in unsure {
            // Asking again is how one learns what became of it.
            self.send(&pod, node, None);
        }
        let keys: Vec<GangKey> = self.gangs.keys().cloned().collect();
        for key in &keys {
            self.pass_time(now, key);
        }
        // From where the last tick stopped, lest the last in line never have a reason.
        let start = keys.partition_point(|key| self.planned_ahead.as_ref().is_some_and(|last| key <= last));
        let mut left = PLANNED_AHEAD;
        for key in keys[start..].iter().chain(&keys[..start]) {
            if left == 0 {
                break;
            }
            if self.plan_ahead(key) {
                left -= 1;
                self.planned_ahead = Some(key.clone());
            }
        }
    }

    fn pass_time(&mut self, now: Time, key: &GangKey) {
        let Some(gang) = self.gangs.get(key) else { return };
        let over: Vec<String> = gang
            .slots
            .iter()
            .filter(|(_, slot)| {
                slot.vacant
                    .is_some_and(|since| gang.members.is_empty() || since.plus(self.timing.vacancy) <= now)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            self.drop_slot(now, key, &name, "its pod is gone");
        }
        let Some(gang) = self.gangs.get(key) else { return };
        if gang.members.is_empty() {
            for (_, ghost) in gang.ghosts.clone() {
                self.release(&ghost);
            }
            self.gangs.remove(key);
            if let Some(seen) = self.seen.get(key) {
                let resource_version = seen.resource_version.clone();
                self.effects.push(Effect::Remove { gang: key.clone(), resource_version });
            }
            return;
        }
        let writing = matches!(gang.durable, Durable::Writing(_));
        let idle = gang.progress.plus(self.timing.expiry) <= now;
        if idle && !writing && !gang.slots.is_empty() && self.nothing_bound(key, gang) {
            self.release_all(now, key, "nothing of the gang was bound in time");
        } else if !gang.ghosts.is_empty() {
            if gang.durable == Durable::Yes {
                self.lay_ghosts(key);
            }
            self.proceed(key);
        }
    }

    /// Whether no pod of the gang is bound, nor may be by a request under way.
    pub(super) fn nothing_bound(&self, key: &GangKey, gang: &GangState) -> bool {
        gang.members.iter().all(|name| {
            self.pod(key, name).is_none_or(|known| known.bound_to().is_none() && !known.binding.may_land())
        })
    }

    /// Gives back all places of a gang, of which nothing is bound.
    pub(super) fn release_all(&mut self, now: Time, key: &GangKey, why: &str) {
        let names: Vec<String> =
            self.gangs.get(key).into_iter().flat_map(|gang| gang.slots.keys().cloned()).collect();
        for name in names {
            self.drop_slot(now, key, &name, why);
        }
        self.write_if_gang(key);
    }
}
