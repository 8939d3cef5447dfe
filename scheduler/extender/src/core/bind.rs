//! Bind: takes the plan of the whole gang, makes it durable, and only then binds pods.

use muster_scheduler_core::{Placement, PodKey};

use super::{
    BindOutcome, BindPod, BindStep, Binding, Durable, Effect, ExtenderCore, GangKey, Slot, Time,
    WriteOutcome, WriteReservation,
};
use crate::plans::Plans;
use crate::wire::BindRequest;

impl<P: Plans> ExtenderCore<P> {
    /// Binds a pod to the node that the plan has for it. `attempt` is what an earlier call for the same request
    /// was told to wait for.
    pub fn bind(&mut self, now: Time, request: &BindRequest<'_>, attempt: Option<u64>) -> BindStep {
        if !self.synced {
            return BindStep::NotSynced;
        }
        let key = PodKey::new(&*request.pod.namespace, &*request.pod.name);
        let known = self.pods.get(&key).filter(|known| known.seen.member.uid == request.pod.uid);
        let Some(known) = known else {
            return match attempt {
                Some(_) => answer(Err(format!("pod {key} is gone"))),
                None => BindStep::Unseen,
            };
        };
        let node = &*request.node;
        let same = |other: &str, what: &str| {
            if other == node { Ok(()) } else { Err(format!("pod {key} {what} node {other}, not to {node}")) }
        };
        if let Some(bound) = known.bound_to() {
            return answer(same(bound, "is already bound to"));
        }
        match &known.binding {
            Binding::Queued { attempt, node } | Binding::Sent { attempt, node } => {
                match same(node, "is being bound to") {
                    Ok(()) => BindStep::Wait(*attempt),
                    Err(error) => answer(Err(error)),
                }
            }
            Binding::Unsure { node, .. } => match same(node, "may already be bound to") {
                Ok(()) if self.short_of_places(&known.gang) => {
                    answer(Err(format!("it is being found out whether pod {key} is bound to {node}")))
                }
                Ok(()) => BindStep::Wait(self.send(&key, node.clone(), None)),
                Err(error) => answer(Err(error)),
            },
            Binding::Bound { .. } => answer(Ok(())),
            Binding::Idle => {
                if let (Some(attempt), Some((failed, error))) = (attempt, &known.failure)
                    && *failed >= attempt
                {
                    return answer(Err(error.clone()));
                }
                self.start(now, &key, node)
            }
        }
    }

    pub(super) fn start(&mut self, now: Time, pod: &PodKey, node: &str) -> BindStep {
        let Some(known) = self.pods.get(pod) else { return BindStep::Unseen };
        if !known.seen.planned {
            return BindStep::Wait(self.send(pod, node.to_owned(), None));
        }
        let key = known.gang.clone();
        let Some(gang) = self.gangs.get(&key) else { return BindStep::Unseen };
        let reserved = gang.slots.get(&pod.name).filter(|slot| slot.assignment.uid == known.seen.member.uid);
        if reserved.is_none_or(|slot| slot.assignment.node != node)
            && let Err(error) = self.commit(now, &key, pod, node)
        {
            return answer(Err(error));
        }
        let attempt = self.number();
        if let (Some(known), Some(gang)) = (self.pods.get_mut(pod), self.gangs.get_mut(&key)) {
            known.binding = Binding::Queued { attempt, node: node.to_owned() };
            gang.queued.insert(pod.name.clone());
        }
        self.proceed(&key);
        BindStep::Wait(attempt)
    }

    /// Takes the plan that has `pod` on `node`, for all of its pods.
    fn commit(&mut self, now: Time, key: &GangKey, pod: &PodKey, node: &str) -> Result<(), String> {
        if now < self.settled {
            return Err("started just now: requests of the run before may still land; try again".to_owned());
        }
        let Some(gang) = self.gangs.get_mut(key) else { return Err(format!("pod {pod} is gone")) };
        let plans = std::mem::take(&mut gang.plans);
        let plans = self.still_fitting(plans);
        let on_node = |placement: &Placement| {
            placement.0.iter().any(|(planned, place)| planned == pod && place.node == node)
        };
        let usable = |placement: &Placement| on_node(placement) && self.current(key, placement, Some(pod));
        let found = plans.iter().find(|plan| usable(&plan.placement)).cloned();
        let Some(plan) = found else {
            if let Some(gang) = self.gangs.get_mut(key) {
                gang.plans = plans;
            }
            return Err(format!("no plan has pod {pod} on node {node} any more; it is planned again"));
        };
        let moved = plan.placement.0.iter().filter_map(|(pod, _)| self.plans.held(pod).cloned());
        let moved: Vec<_> = moved.filter(|held| self.by_uid.contains_key(&held.uid)).collect();
        self.take(&plan.placement, &plan.instead_of).map_err(|error| error.to_string())?;
        for assignment in moved {
            self.haunt(key, assignment);
        }
        let ranks: Vec<u32> = plan
            .placement
            .0
            .iter()
            .map(|(pod, _)| self.pods.get(pod).map_or(u32::MAX, |known| known.seen.member.rank))
            .collect();
        let Some(gang) = self.gangs.get_mut(key) else { return Err(format!("pod {pod} is gone")) };
        for vanished in &plan.instead_of {
            gang.slots.remove(&vanished.name);
        }
        for ((pod, assignment), rank) in plan.placement.0.into_iter().zip(ranks) {
            gang.slots.insert(pod.name, Slot { rank, assignment, vacant: None });
        }
        gang.forget_plans();
        gang.progress = now;
        gang.marked = false;
        if gang.template.is_some() {
            gang.must_write();
        }
        Ok(())
    }

    /// Writes what must be written, then sends what may be sent.
    pub(super) fn proceed(&mut self, key: &GangKey) {
        let Some(gang) = self.gangs.get_mut(key) else { return };
        match gang.durable {
            Durable::Writing(_) => {}
            Durable::No => {
                gang.durable = Durable::Writing(gang.epoch);
                let epoch = gang.epoch;
                let replaces = self.seen.get(key).map(|seen| seen.resource_version.clone());
                let members = self.content(key);
                let write = WriteReservation { gang: key.clone(), epoch, members, replaces };
                self.effects.push(Effect::Write(write));
            }
            Durable::Yes => {
                if let Some(error) = self.not_whole(key) {
                    return self.fail_queued(key, &error);
                }
                for pod in self.queued_of(key) {
                    if let Some(known) = self.pods.get(&pod)
                        && let Binding::Queued { attempt, node } = known.binding.clone()
                    {
                        self.send(&pod, node, Some(attempt));
                    }
                }
            }
        }
    }

    /// Takes the pods out whose bind calls wait for the reservation.
    fn queued_of(&mut self, key: &GangKey) -> Vec<PodKey> {
        let queued = self.gangs.get_mut(key).map(|gang| std::mem::take(&mut gang.queued)).unwrap_or_default();
        queued.into_iter().map(|name| PodKey::new(&key.namespace, name)).collect()
    }

    /// Why the first pod of a gang may not be bound: pods or places are missing.
    fn not_whole(&self, key: &GangKey) -> Option<String> {
        if let Some(refusal) = self.incomplete(key) {
            return Some(format!("gang {key}: {}", refusal.reason));
        }
        self.short_of_places(key)
            .then(|| format!("gang {key}: too few of its pods still have a place; it is planned again"))
    }

    /// Whether no pod of the gang is known to be bound, and too few have a place to bind the first.
    pub(super) fn short_of_places(&self, key: &GangKey) -> bool {
        let Some(gang) = self.gangs.get(key).filter(|gang| !self.started(key, gang)) else { return false };
        gang.members.iter().filter(|name| self.placed(key, gang, name)).count() < gang.needed()
    }

    /// Finds out whether a pod is bound.
    pub(super) fn look(&mut self, pod: &PodKey, node: String) {
        self.send(pod, node, None);
        if let Some(Effect::Bind(bind)) = self.effects.pop() {
            self.effects.push(Effect::Look(bind));
        }
    }

    /// Sends a binding; its attempt.
    pub(super) fn send(&mut self, pod: &PodKey, node: String, attempt: Option<u64>) -> u64 {
        let attempt = attempt.unwrap_or_else(|| self.number());
        if let Some(known) = self.pods.get_mut(pod) {
            known.binding = Binding::Sent { attempt, node: node.clone() };
            let gpu_indices = self.plans.held(pod).map(|held| held.gpu_indices.clone()).unwrap_or_default();
            let uid = known.seen.member.uid.clone();
            self.effects.push(Effect::Bind(BindPod { pod: pod.clone(), uid, node, gpu_indices, attempt }));
        }
        attempt
    }

    /// What became of a write.
    pub fn written(&mut self, now: Time, write: &WriteReservation, outcome: WriteOutcome) {
        let key = &write.gang;
        let Some(gang) = self.gangs.get_mut(key) else { return };
        if gang.durable != Durable::Writing(write.epoch) {
            // A watch was faster.
            return;
        }
        match outcome {
            WriteOutcome::Written(resource_version) => {
                let current = gang.epoch == write.epoch;
                gang.durable = if current { Durable::Yes } else { Durable::No };
                gang.progress = now;
                self.remember(super::SeenReservation {
                    gang: key.clone(),
                    epoch: write.epoch,
                    members: write.members.clone(),
                    resource_version,
                });
                self.lay_ghosts(key);
                self.proceed(key);
            }
            WriteOutcome::Conflict(Some(current)) => {
                gang.durable = Durable::No;
                if current.epoch == write.epoch && current.members == write.members {
                    // An earlier try of the same write had landed.
                    gang.durable = if gang.epoch == write.epoch { Durable::Yes } else { Durable::No };
                } else {
                    gang.epoch = gang.epoch.max(current.epoch + 1);
                }
                self.seen.insert(key.clone(), current);
                if self.gangs.get(key).is_some_and(|gang| gang.durable == Durable::Yes) {
                    self.lay_ghosts(key);
                }
                self.proceed(key);
            }
            WriteOutcome::Conflict(None) => {
                gang.durable = Durable::No;
                self.seen.remove(key);
                self.proceed(key);
            }
            WriteOutcome::Failed(error) | WriteOutcome::Unknown(error) => {
                gang.durable = Durable::No;
                self.fail_queued(key, &format!("cannot write the reservation of gang {key}: {error}"));
            }
        }
    }

    /// Fails the bind calls that wait for the gang's reservation.
    pub(super) fn fail_queued(&mut self, key: &GangKey, error: &str) {
        for pod in self.queued_of(key) {
            if let Some(known) = self.pods.get_mut(&pod)
                && let Binding::Queued { attempt, .. } = known.binding
            {
                known.failure = Some((attempt, error.to_owned()));
                known.binding = Binding::Idle;
            }
        }
    }

    /// What became of a binding.
    pub fn bound(&mut self, now: Time, bind: &BindPod, outcome: BindOutcome) {
        let Some(known) = self.pods.get_mut(&bind.pod) else { return };
        let current = matches!(&known.binding, Binding::Sent { attempt, .. } if *attempt == bind.attempt);
        if known.seen.member.uid != bind.uid || !current {
            return;
        }
        let key = known.gang.clone();
        let mut fail = |error: String, binding: Binding| {
            known.failure = Some((bind.attempt, error));
            known.binding = binding;
        };
        match outcome {
            BindOutcome::Bound => known.binding = Binding::Bound { node: bind.node.clone() },
            BindOutcome::AlreadyBound(node) => {
                known.binding = Binding::Bound { node: node.clone() };
                if node != bind.node {
                    let member = known.seen.member.clone();
                    let truth = self.plans.assignment(&member, &node, &[]);
                    if let Some(slot) =
                        self.gangs.get_mut(&key).and_then(|gang| gang.slots.get_mut(&bind.pod.name))
                    {
                        slot.assignment = truth.clone();
                    }
                    self.record(bind.pod.clone(), truth);
                }
            }
            BindOutcome::NotBound => fail(format!("pod {} was not bound", bind.pod), Binding::Idle),
            BindOutcome::Gone => fail(format!("pod {} is gone", bind.pod), Binding::Idle),
            BindOutcome::Failed(error) => {
                fail(format!("cannot bind pod {} to {}: {error}", bind.pod, bind.node), Binding::Idle);
            }
            BindOutcome::Unknown(error) => fail(
                format!("cannot tell whether pod {} is bound to {}: {error}", bind.pod, bind.node),
                Binding::Unsure { node: bind.node.clone(), since: now },
            ),
        }
        if let Some(gang) = self.gangs.get_mut(&key) {
            gang.progress = now;
        }
    }

    /// Says in the reservation's status that all is bound.
    pub(super) fn mark_if_bound(&mut self, key: &GangKey) {
        let Some(gang) = self.gangs.get(key) else { return };
        if gang.marked || gang.template.is_none() || gang.slots.is_empty() || gang.durable != Durable::Yes {
            return;
        }
        let all = gang.slots.iter().all(|(name, slot)| {
            self.pod(key, name).is_some_and(|known| known.bound_to() == Some(&slot.assignment.node))
        });
        if let (true, Some(gang)) = (all, self.gangs.get_mut(key)) {
            gang.marked = true;
            self.effects.push(Effect::MarkBound { gang: key.clone(), epoch: gang.epoch });
        }
    }
}

fn answer(result: Result<(), String>) -> BindStep {
    BindStep::Answer(result)
}
