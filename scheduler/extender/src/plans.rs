//! Where plans come from. The state machine speaks to the ledger only through [`Plans`], so that tests can put
//! anything behind it and a change of the ledger is met in one place.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use muster_scheduler_core::{
    Assignment, Gang, GangName, Ledger, Member, Node, Placement, PodKey, TakeError, Talk, Waiting,
};
use muster_scheduler_topology::import::TopologySources;

use crate::core::Time;

/// Why a gang cannot be placed now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence.
    pub reason: String,
    /// Whether it could be placed if other pods went.
    pub evictable: bool,
    /// When it is expected to start, in milliseconds since 1970.
    pub starts: Option<Time>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)?;
        match self.starts.and_then(|starts| Timestamp::from_millisecond(starts.0).ok()) {
            Some(starts) => {
                write!(formatter, "; expected to start at {}", starts.strftime("%Y-%m-%dT%H:%M:%SZ"))
            }
            None => Ok(()),
        }
    }
}

/// What every node has and who took what.
pub trait Plans: Send + 'static {
    /// A copy to plan on, elsewhere and later.
    type Snapshot: Planner;

    /// A node appeared or changed; whether anything that matters did.
    fn set_node(&mut self, node: Node) -> bool;
    /// A node is gone.
    fn remove_node(&mut self, name: &str);
    /// What was written down about where nodes are, beside their labels, has changed.
    fn set_topology_sources(&mut self, sources: TopologySources);
    /// Whether a node is known.
    fn knows(&self, node: &str) -> bool;
    /// Whether pods may be put on a node.
    fn usable(&self, node: &str) -> bool;
    /// What a pod takes on a node.
    fn assignment(&self, member: &Member, node: &str, gpu_indices: &[u32]) -> Assignment;
    /// Records what a pod has in truth.
    fn record(&mut self, pod: PodKey, assignment: Assignment);
    /// What a pod has.
    fn held(&self, pod: &PodKey) -> Option<&Assignment>;
    /// Gives back what a pod has; whether it had anything.
    fn release(&mut self, pod: &PodKey) -> bool;
    /// Takes all places or none. What these pods and those of `instead_of` have counts as free and is given back.
    ///
    /// # Errors
    /// When one of the places is not free.
    fn take(&mut self, placement: &Placement, instead_of: &[PodKey]) -> Result<(), TakeError>;
    /// What a gang that has places sends over uplinks that it shares, with these pods in the order of their ranks;
    /// nothing when it has no pods.
    fn talks(&mut self, gang: &Gang, pods: &[PodKey]);
    /// A copy to plan a gang on, on which the room of `without` is free.
    fn snapshot(&mut self, gang: &Gang, without: &[PodKey]) -> Self::Snapshot;

    /// Whether all places could be taken.
    fn fits(&mut self, placement: &Placement, instead_of: &[PodKey]) -> bool {
        let moved = placement.0.iter().map(|(pod, _)| pod).chain(instead_of);
        let before: Vec<_> = moved.filter_map(|pod| Some((pod.clone(), self.held(pod)?.clone()))).collect();
        let fits = self.take(placement, instead_of).is_ok();
        if fits {
            for (pod, _) in &placement.0 {
                self.release(pod);
            }
            for (pod, assignment) in before {
                self.record(pod, assignment);
            }
        }
        fits
    }
}

/// A copy of the ledger on which a gang is placed.
pub trait Planner: Send + 'static {
    /// Leaves only these nodes.
    fn restrict(&mut self, offered: &BTreeSet<String>);

    /// Finds places for the gang's waiting pods.
    ///
    /// # Errors
    /// Why there are none.
    fn place(&mut self, gang: &Gang) -> Result<Placement, Refusal>;
}

impl Plans for Ledger {
    type Snapshot = Ledger;

    fn set_node(&mut self, node: Node) -> bool {
        let changed = self.node(&node.name) != Some(&node);
        if changed {
            Ledger::set_node(self, node);
        }
        changed
    }

    fn remove_node(&mut self, name: &str) {
        Ledger::remove_node(self, name);
    }

    fn set_topology_sources(&mut self, sources: TopologySources) {
        Ledger::set_topology_sources(self, sources);
    }

    fn knows(&self, node: &str) -> bool {
        self.node(node).is_some()
    }

    fn usable(&self, node: &str) -> bool {
        self.node(node).is_some_and(|node| node.schedulable)
    }

    fn assignment(&self, member: &Member, node: &str, gpu_indices: &[u32]) -> Assignment {
        Assignment {
            uid: member.uid.clone(),
            node: node.to_owned(),
            resources: member.requests.clone(),
            gpu_indices: gpu_indices.to_vec(),
            gpu_share: if member.gpus == 0 { member.gpu_share } else { 0 },
            claims: Vec::new(),
        }
    }

    fn record(&mut self, pod: PodKey, assignment: Assignment) {
        Ledger::record(self, pod, assignment);
    }

    fn held(&self, pod: &PodKey) -> Option<&Assignment> {
        Ledger::assignment(self, pod)
    }

    fn release(&mut self, pod: &PodKey) -> bool {
        Ledger::release(self, pod)
    }

    fn take(&mut self, placement: &Placement, instead_of: &[PodKey]) -> Result<(), TakeError> {
        let moved = placement.0.iter().map(|(pod, _)| pod).chain(instead_of);
        let before: Vec<_> =
            moved.filter_map(|pod| Some((pod.clone(), Ledger::assignment(self, pod)?.clone()))).collect();
        for (pod, _) in &before {
            Ledger::release(self, pod);
        }
        let taken = Ledger::take(self, placement);
        if taken.is_err() {
            for (pod, assignment) in before {
                Ledger::record(self, pod, assignment);
            }
        }
        taken
    }

    fn talks(&mut self, gang: &Gang, pods: &[PodKey]) {
        let name = GangName { namespace: gang.namespace.clone(), name: gang.name.clone() };
        if pods.is_empty() {
            self.is_silent(&name);
            return;
        }
        let places = pods.iter().filter_map(|pod| self.place_of(pod)).collect();
        let talk = Talk { places, shape: gang.shape, all_reduce: gang.all_reduce, step: None };
        Ledger::talks(self, name, talk);
    }

    /// A ledger of the same space that does not know who has what: the space is cheap to copy, its pods are not.
    fn snapshot(&mut self, gang: &Gang, without: &[PodKey]) -> Ledger {
        let space = self.space();
        // The others mostly ask for the same.
        if let Some(first) = gang.waiting.first() {
            space.get_ready_for(first);
        }
        let mut copy = Ledger::default();
        *copy.space() = space.clone();
        for pod in without {
            if let Some((node, shape, devices)) = self.holding(pod) {
                copy.space().give_back(node, shape, devices);
            }
        }
        copy
    }
}

impl Planner for Ledger {
    fn restrict(&mut self, offered: &BTreeSet<String>) {
        // What is taken on the other nodes does not matter then.
        let others = self.nodes().filter(|node| node.schedulable && !offered.contains(&node.name));
        for mut node in others.cloned().collect::<Vec<_>>() {
            node.schedulable = false;
            Ledger::set_node(self, node);
        }
    }

    fn place(&mut self, gang: &Gang) -> Result<Placement, Refusal> {
        Ledger::place(self, gang).map_err(|waiting| Refusal {
            reason: waiting.to_string(),
            evictable: matches!(waiting, Waiting::ForRoom { .. }),
            starts: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_the_gang_starts() {
        let mut refusal = Refusal { reason: "2 more GPUs are needed".to_owned(), ..Refusal::default() };
        assert_eq!(refusal.to_string(), "2 more GPUs are needed");
        refusal.starts = Some(Time(1_700_000_000_000));
        assert_eq!(refusal.to_string(), "2 more GPUs are needed; expected to start at 2023-11-14T22:13:20Z");
    }
}
