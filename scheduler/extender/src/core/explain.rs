//! How far each gang has come, for people and dashboards.

use super::{Durable, ExtenderCore, GangKey, GangReport, MemberReport, Time};
use crate::plans::Plans;

impl<P: Plans> ExtenderCore<P> {
    /// How far a gang has come.
    pub fn explain(&self, key: &GangKey) -> Option<GangReport> {
        let gang = self.gangs.get(key)?;
        let members: Vec<MemberReport> = gang
            .members
            .iter()
            .map(|name| {
                let bound = self.pod(key, name).and_then(|known| known.bound_to());
                let slot = gang.slots.get(name).filter(|_| self.placed(key, gang, name));
                let reserved = slot.map(|slot| slot.assignment.node.as_str());
                MemberReport {
                    pod: name.clone(),
                    node: bound.or(reserved).map(str::to_owned),
                    bound: bound.is_some(),
                }
            })
            .collect();
        let bound = members.iter().filter(|member| member.bound).count();
        let placed = members.iter().filter(|member| member.node.is_some()).count();
        let refusal =
            gang.refusals.iter().min_by_key(|(scope, ..)| usize::from(*scope != super::Scope::Anywhere));
        let (phase, reason) = if bound == members.len() {
            ("Bound", None)
        } else if members.len() < gang.needed() {
            ("Waiting", Some(format!("{}/{} members created", members.len(), gang.needed())))
        } else if placed == members.len() && gang.durable == Durable::Yes {
            (
                "Reserved",
                Some(format!("{bound} of {} pods are bound; the others have their places", members.len())),
            )
        } else if placed == members.len() {
            ("Reserved", Some("its reservation is being written".to_owned()))
        } else if let Some((_, _, refusal)) = refusal {
            ("Waiting", Some(refusal.reason.clone()))
        } else if gang.plans.is_empty() {
            ("Waiting", Some("kube-scheduler has not asked for it yet, or it is being planned".to_owned()))
        } else {
            ("Planned", Some("it starts when kube-scheduler binds its first pod".to_owned()))
        };
        Some(GangReport {
            namespace: key.namespace.clone(),
            gang: key.name.strip_prefix("pod ").unwrap_or(&key.name).to_owned(),
            phase,
            reason,
            starts: refusal.and_then(|(_, _, refusal)| refusal.starts),
            epoch: gang.epoch,
            members,
        })
    }

    /// Gangs that are not bound, in line: priority, then age, then name.
    pub fn queue(&self) -> Vec<GangReport> {
        self.line().iter().filter_map(|key| self.explain(key)).collect()
    }

    pub(super) fn line(&self) -> Vec<GangKey> {
        let mut line: Vec<(i32, Time, &GangKey)> = self
            .open
            .iter()
            .filter_map(|key| {
                let gang = self.gangs.get(key)?;
                let members = || gang.members.iter().filter_map(|name| self.pod(key, name));
                let waits = members().any(|known| known.seen.planned && known.bound_to().is_none());
                let priority = members().map(|known| known.seen.priority).max()?;
                waits.then_some((priority, gang.since, key))
            })
            .collect();
        line.sort_by_key(|(priority, since, key)| (std::cmp::Reverse(*priority), *since, *key));
        line.into_iter().map(|(_, _, key)| key.clone()).collect()
    }
}
