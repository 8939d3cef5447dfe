//! When nodes become idle, so that jobs which end together can be put together.

use muster_scheduler_core::search::Slots;
use muster_scheduler_core::space::{NodeId, Space};

use crate::job::Hold;
use crate::time::{Milliseconds, Time};
use crate::timeline::Request;

/// When each node is idle, were nothing else to start. Pods that fit on one node go where others end when they do:
/// nodes are idle sooner and for longer than when every node has a few that still run, and gangs of whole nodes
/// find room.
#[derive(Debug, Clone)]
pub(crate) struct Idle {
    now: Time,
    /// By number of the node.
    from: Vec<Time>,
}

impl Idle {
    pub(crate) fn new<'a>(now: Time, running: impl Iterator<Item = (&'a Hold, Time)>) -> Self {
        let mut idle = Self { now, from: Vec::new() };
        running.for_each(|(hold, ends)| idle.note(hold, ends));
        idle
    }

    /// A job is supposed to end at `ends`.
    pub(crate) fn note(&mut self, hold: &Hold, ends: Time) {
        for slot in &hold.slots.0 {
            let node = slot.node.index();
            if self.from.len() <= node {
                self.from.resize(node + 1, self.now);
            }
            self.from[node] = self.from[node].max(ends);
        }
    }

    /// Places for a job that starts now.
    pub(crate) fn find(&self, space: &mut Space, request: &Request<'_>) -> Option<Slots> {
        let ends = self.now + request.length;
        let idle_from = |node: NodeId| self.from.get(node.index()).copied().unwrap_or(self.now);
        space.find_ranked(&request.form.demand, &|node| prolonged(ends.since(idle_from(node))))
    }
}

/// How much longer a node is busy: half octaves beyond a minute, as exact as run times are known.
fn prolonged(by: Milliseconds) -> u32 {
    const MINUTE: f64 = 60_000.0;
    if by == 0 { 0 } else { 1 + (2.0 * (by as f64 / MINUTE).max(1.0).log2()) as u32 }
}
