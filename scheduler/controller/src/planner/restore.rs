//! Plans that an earlier run of the scheduler wrote down.

use kube::ResourceExt;
use muster_scheduler_api::{GangReservation, ReservedMember, SCHEDULER_NAME, labels};
use muster_scheduler_core::{Assignment, Placement, PodKey};

use super::Planner;
use super::decision::{Binding, Written};
use super::pods::{GangKey, State};

impl Planner {
    /// Plans that an earlier run wrote down and may not have finished: their unbound pods keep their places. The
    /// phase is not asked: it may be that of the plan before, and a plan whose pods are all bound gives nothing.
    pub fn restore<'a>(&mut self, plans: impl IntoIterator<Item = &'a GangReservation>) -> Vec<Binding> {
        let key = |plan: &GangReservation| GangKey {
            namespace: plan.metadata.namespace.clone().unwrap_or_default(),
            name: plan.spec.gang.clone(),
        };
        self.follow_claims();
        let mut plans: Vec<_> = plans.into_iter().map(|plan| (key(plan), plan)).collect();
        // Who was let go has his place already, whatever older plans say of it.
        for (key, plan) in &plans {
            self.confirm(&key.namespace, &plan.spec.members);
        }
        // A gang that is bound in part needs the rest of its places more than one that is not bound at all.
        plans.sort_by_key(|(key, _)| self.pods.census(key).with_place() == 0);
        plans.into_iter().filter_map(|(key, plan)| self.restore_one(&key, plan)).collect()
    }

    /// Takes the places of a plan's unbound pods again, when enough of its pods are there for the gang to be whole.
    fn restore_one(&mut self, key: &GangKey, reservation: &GangReservation) -> Option<Binding> {
        let mut places = Vec::new();
        let members = reservation.spec.members.iter();
        let claims: Vec<&str> =
            members.flat_map(|member| &member.claims).map(|claim| claim.name.as_str()).collect();
        let (mut planned, mut settled) = (0, 0);
        let mut ours = reservation.labels().get(labels::PLANNED_BY).is_some_and(|by| by == SCHEDULER_NAME);
        for reserved in &reservation.spec.members {
            let pod = PodKey::new(&key.namespace, &reserved.pod);
            planned += usize::from(!pod.is_spare());
            let view = self.pods.get(&pod);
            let Some(view) = view.filter(|view| view.member.uid == reserved.uid && view.gang == *key) else {
                continue;
            };
            ours = true;
            settled += usize::from(view.state.has_place());
            let usable = self.ledger.node(&reserved.node).is_some_and(|node| node.schedulable);
            if view.state == State::Waiting && usable {
                let mut assignment = Assignment {
                    uid: reserved.uid.clone(),
                    node: reserved.node.clone(),
                    resources: view.member.requests.clone(),
                    gpu_indices: reserved.gpu_indices.clone(),
                    gpu_share: view.member.gpu_share,
                    claims: Vec::new(),
                };
                let granted = self.granted_by_plan(&pod, &reserved.node, &reserved.claims, &claims);
                if let Some(granted) = granted {
                    assignment.claims = granted;
                    places.push((pod, assignment));
                }
            }
        }
        if ours {
            self.written.insert(key.clone(), Written::of(reservation));
            self.changed.insert(key.clone());
        }
        // What else describes the gang may not have been read yet; the plan itself was of a whole gang.
        let least = match self.pods.described(key) {
            Some(Err(_)) => planned,
            _ => self.pods.gang(key).min_available,
        };
        if settled > 0 && planned >= least {
            self.begun.insert(key.clone());
        }
        if self.pods.census(key).with_place() + places.len() < least {
            tracing::info!(gang = %key, "too few pods of the last run's plan are there; planning anew");
            return None;
        }
        let placement = Placement(places);
        if let Err(error) = self.ledger.take(&placement) {
            tracing::info!(%error, gang = %key, "the plan of the last run no longer fits; planning anew");
            return None;
        }
        self.restore_spares(key, &reservation.spec.members, !placement.0.is_empty());
        if placement.0.is_empty() {
            return None;
        }
        self.begun.insert(key.clone());
        Some(self.binding(key, placement))
    }

    /// Takes a gang's spare places again, when it has places at all.
    fn restore_spares(&mut self, gang: &GangKey, members: &[ReservedMember], taken: bool) {
        let largest = self.pods.of(gang).map(|(_, view)| &view.member).max_by_key(|member| member.gpus);
        let Some(largest) = largest.filter(|_| taken || self.pods.census(gang).with_place() > 0).cloned()
        else {
            return;
        };
        for member in members {
            let spare = PodKey::new(&gang.namespace, &member.pod);
            if !spare.is_spare_of(&gang.namespace, &gang.name) {
                continue;
            }
            let assignment = Assignment {
                uid: String::new(),
                node: member.node.clone(),
                resources: largest.requests.clone(),
                gpu_indices: member.gpu_indices.clone(),
                gpu_share: largest.gpu_share,
                claims: Vec::new(),
            };
            if let Err(error) = self.ledger.take(&Placement(vec![(spare, assignment)])) {
                tracing::debug!(%error, %gang, "a spare place of the last run is taken");
            }
        }
    }
}
