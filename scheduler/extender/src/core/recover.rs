//! Reservations as the API server has them: read back after a restart, and guarded against other writers.

use muster_scheduler_core::{Placement, PodKey};

use super::{Durable, ExtenderCore, GangKey, SeenReservation, Slot, Time};
use crate::plans::Plans;

impl<P: Plans> ExtenderCore<P> {
    /// Everything has been listed once: what was reserved is taken again, and calls are answered from now on.
    pub fn synced(&mut self, now: Time) {
        if self.synced {
            return;
        }
        self.synced = true;
        self.settled = now.plus(self.timing.settle);
        let keys: Vec<GangKey> = self.seen.keys().cloned().collect();
        // Places of pods that exist before those kept for successors.
        for successors in [false, true] {
            for key in &keys {
                self.adopt(now, key, successors);
            }
        }
    }

    /// A reservation appeared or changed.
    pub fn reservation_seen(&mut self, now: Time, seen: SeenReservation) {
        let key = seen.gang.clone();
        if self.seen.get(&key).is_some_and(|known| known.epoch > seen.epoch) {
            return;
        }
        let Some(gang) = self.gangs.get_mut(&key).filter(|_| self.synced) else {
            self.seen.insert(key, seen);
            return;
        };
        let members = seen.members.clone();
        let epoch = seen.epoch;
        self.seen.insert(key.clone(), seen);
        if epoch < gang.epoch {
            return;
        }
        let settled = gang.durable == Durable::Yes;
        let nothing_held = gang.slots.is_empty() && gang.ghosts.is_empty();
        let same = epoch == gang.epoch;
        if same && settled {
            return;
        }
        if same && members == self.content(&key) {
            // The answer to the write is late or lost.
            if let Some(gang) = self.gangs.get_mut(&key) {
                gang.durable = Durable::Yes;
            }
            self.lay_ghosts(&key);
        } else if nothing_held && settled {
            for successors in [false, true] {
                self.adopt(now, &key, successors);
            }
        } else if let Some(gang) = self.gangs.get_mut(&key) {
            // Somebody else wrote, such as a run before this one whose request was slow: this plan wins.
            gang.epoch = epoch + 1;
            gang.durable = Durable::No;
            for (until, _) in &mut gang.ghosts {
                *until = (*until).max(epoch + 1);
            }
        }
        self.proceed(&key);
    }

    /// A reservation is gone.
    pub fn reservation_gone(&mut self, key: &GangKey) {
        self.seen.remove(key);
        let Some(gang) = self.gangs.get_mut(key) else { return };
        if gang.slots.is_empty() || gang.template.is_none() {
            return;
        }
        if gang.durable == Durable::Yes {
            // Without it a restart would forget the places: written again before anything more is bound.
            gang.epoch += 1;
            gang.durable = Durable::No;
            self.proceed(key);
        }
    }

    pub(super) fn remember(&mut self, seen: SeenReservation) {
        if self.seen.get(&seen.gang).is_none_or(|known| known.epoch <= seen.epoch) {
            self.seen.insert(seen.gang.clone(), seen);
        }
    }

    /// Takes the places of a written reservation for those of its pods that still wait, or for the successors of
    /// those that are gone.
    fn adopt(&mut self, now: Time, key: &GangKey, successors: bool) {
        let Some(seen) = self.seen.get(key).cloned() else { return };
        let Some(gang) = self.gangs.get_mut(key) else { return };
        if !successors {
            gang.epoch = seen.epoch;
            gang.durable = Durable::Yes;
        }
        gang.progress = now;
        gang.forget_plans();
        let mut given_up = Vec::new();
        for place in &seen.members {
            let pod = PodKey::new(&key.namespace, &place.pod);
            let Some(known) = self.pods.get(&pod).filter(|known| known.gang == *key) else { continue };
            let member = &known.seen.member;
            if known.bound_to().is_some() || (member.uid != place.uid) != successors {
                continue;
            }
            let vacant = successors.then_some(now);
            let rank = member.rank;
            let mut assignment = self.plans.assignment(member, &place.node, &place.gpu_indices);
            assignment.uid.clone_from(&place.uid);
            let placement = Placement(vec![(pod, assignment.clone())]);
            if self.plans.usable(&place.node) && self.take(&placement, &[]).is_ok() {
                if let Some(gang) = self.gangs.get_mut(key) {
                    gang.slots.insert(place.pod.clone(), Slot { rank, assignment, vacant });
                }
            } else if !successors {
                given_up.push(assignment);
            }
        }
        if !given_up.is_empty() {
            // The API server must not show them any more before their room goes to others.
            for assignment in given_up {
                if !self.plans.usable(&assignment.node) {
                    self.haunt(key, assignment);
                }
            }
            self.write_if_gang(key);
        }
        self.open.insert(key.clone());
    }
}
