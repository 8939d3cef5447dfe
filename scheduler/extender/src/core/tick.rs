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
        let keys: Vec<GangKey> = self.open.iter().cloned().collect();
        let mut unsure = Vec::new();
        for key in &keys {
            let names = self.gangs.get(key).into_iter().flat_map(|gang| &gang.members);
            unsure.extend(names.filter_map(|name| match &self.pod(key, name)?.binding {
                Binding::Unsure { node, since } if since.plus(self.timing.unsure) <= now => {
                    Some((PodKey::new(&key.namespace, name), node.clone(), key.clone(), *since))
                }
                _ => None,
            }));
        }
        for (pod, node, key, since) in unsure {
            if !self.short_of_places(&key) {
                // Asking again is how one learns what became of it.
                self.send(&pod, node, None);
            } else if since.plus(self.timing.settle) <= now {
                // To bind it now would start a gang that is not whole.
                self.look(&pod, node);
            }
        }
        for key in &keys {
            self.pass_time(now, key);
            self.mark_if_bound(key);
            self.listen_to(key);
            self.close(key);
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

    /// Counts what a gang with places sends over uplinks that it shares with others.
    fn listen_to(&mut self, key: &GangKey) {
        let Some(gang) = self.gangs.get(key) else { return };
        let Some(template) = gang.template.clone() else { return };
        let mut slots: Vec<_> = gang.slots.iter().filter(|(_, slot)| slot.vacant.is_none()).collect();
        slots.sort_by_key(|(name, slot)| (slot.rank, *name));
        let pods: Vec<PodKey> = slots.iter().map(|(name, _)| PodKey::new(&key.namespace, *name)).collect();
        self.plans.talks(&template, &pods);
    }

    /// Forgets about a gang that is bound, but for what its watches say.
    fn close(&mut self, key: &GangKey) {
        let bound = |gang: &GangState| {
            gang.ghosts.is_empty()
                && gang.durable == Durable::Yes
                && gang.slots.values().all(|slot| slot.vacant.is_none())
                && gang.members.iter().all(|name| {
                    self.pod(key, name).is_some_and(|known| known.bound_to().is_some() || !known.seen.planned)
                })
        };
        if self.gangs.get(key).is_none_or(bound) {
            self.open.remove(key);
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
            if let Some(gang) = self.gangs.remove(key)
                && let Some(template) = gang.template
            {
                self.plans.talks(&template, &[]);
            }
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
