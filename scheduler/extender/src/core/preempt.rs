//! Preempt: kube-scheduler found pods to evict for one pod on each of some nodes. Only whole gangs may go, and
//! only where the whole gang that needs the room then starts.

use std::collections::{BTreeMap, BTreeSet};

use muster_scheduler_core::PodKey;

use super::{ExtenderCore, GangKey, PodState};
use crate::plans::{Planner, Plans};
use crate::wire::{Candidate, PreemptRequest, Victim, Victims};

/// How many candidates are tried out; kube-scheduler takes the best of what is left.
const TRIED: usize = 16;

impl<P: Plans> ExtenderCore<P> {
    /// Which candidates remain, with whom evicting them takes along. Changes nothing.
    pub fn preempt(&mut self, request: &PreemptRequest<'_>) -> BTreeMap<String, Victims> {
        let mut answer = BTreeMap::new();
        let key = PodKey::new(&*request.pod.namespace, &*request.pod.name);
        let known = self.pods.get(&key).filter(|known| known.seen.member.uid == request.pod.uid);
        let Some(known) = known.filter(|_| self.synced) else { return answer };
        let priority = known.seen.priority;
        if !known.seen.planned {
            return request.candidates.iter().map(as_proposed).collect();
        }
        let Some(gang) = self.gangs.get(&known.gang) else { return answer };
        let (waiting, placed_on) = self.demand(&known.gang, gang);
        if waiting.len() + placed_on.len() < gang.needed()
            || !waiting.iter().any(|member| member.uid == request.pod.uid)
        {
            return answer;
        }
        let ask = gang.ask(&known.gang, waiting, placed_on);
        let mut candidates: Vec<&Candidate<'_>> = request.candidates.iter().collect();
        candidates
            .sort_by(|left, right| (left.victims.len(), &left.node).cmp(&(right.victims.len(), &right.node)));
        for candidate in candidates.into_iter().take(TRIED) {
            let Some(victims) = self.whole_gangs(candidate, priority) else { continue };
            let without: Vec<PodKey> =
                victims.iter().filter_map(|uid| self.by_uid.get(uid).cloned()).collect();
            // Nobody is evicted in vain.
            let Ok(placement) = self.plans.snapshot(&ask, &without).place(&ask) else { continue };
            if placement.0.iter().any(|(_, place)| place.node == *candidate.node) {
                let pods = victims.into_iter().map(|uid| Victim { uid }).collect();
                let budget_violations = candidate.budget_violations;
                answer.insert(candidate.node.clone().into_owned(), Victims { pods, budget_violations });
            }
        }
        answer
    }

    /// The victims on a node with all of their gangs, or nothing when that is more than this node's pods of
    /// lower priority.
    fn whole_gangs(&self, candidate: &Candidate<'_>, priority: i32) -> Option<BTreeSet<String>> {
        let mut victims: BTreeSet<String> =
            candidate.victims.iter().map(|uid| uid.clone().into_owned()).collect();
        let mut gangs: BTreeMap<&GangKey, usize> = BTreeMap::new();
        for uid in &candidate.victims {
            // A pod that is not known belongs to no gang that is known.
            let Some(known) = self.by_uid.get(&**uid).and_then(|key| self.pods.get(key)) else { continue };
            *gangs.entry(&known.gang).or_default() += 1;
        }
        for (key, leaving) in gangs {
            let gang = self.gangs.get(key)?;
            let running: Vec<_> = gang
                .members
                .iter()
                .filter_map(|name| self.pod(key, name))
                .filter(|known| known.bound_to().is_some())
                .collect();
            if running.len() - leaving.min(running.len()) >= gang.needed() {
                // What is beyond the gang's least may go alone.
                continue;
            }
            for known in running {
                let here =
                    matches!(&known.seen.state, PodState::Bound(place) if place.node == *candidate.node);
                if !here || known.seen.priority >= priority {
                    return None;
                }
                victims.insert(known.seen.member.uid.clone());
            }
        }
        Some(victims)
    }
}

fn as_proposed(candidate: &Candidate<'_>) -> (String, Victims) {
    let pods = candidate.victims.iter().map(|uid| Victim { uid: uid.clone().into_owned() }).collect();
    (candidate.node.clone().into_owned(), Victims { pods, budget_violations: candidate.budget_violations })
}
