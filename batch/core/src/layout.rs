//! How the processes of a job lie on its nodes.

use crate::hosts;

/// Nodes, and the processes on each: as many as on the others, or one more on the first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    nodes: u32,
    tasks: u32,
}

/// Why processes do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("--ntasks {tasks} do not fit on --nodes {nodes} with --ntasks-per-node {per_node}")]
pub struct LayoutError {
    tasks: u32,
    nodes: u32,
    per_node: u32,
}

impl Layout {
    /// What `--nodes`, `--ntasks` and `--ntasks-per-node` mean together. There are never more nodes than processes, as in
    /// Slurm.
    ///
    /// # Errors
    /// More processes than the nodes may have.
    pub fn new(nodes: Option<u32>, tasks: Option<u32>, per_node: Option<u32>) -> Result<Self, LayoutError> {
        let each = per_node.unwrap_or(1).max(1);
        let (nodes, tasks) = match (nodes, tasks) {
            (nodes, None) => (nodes.unwrap_or(1), nodes.unwrap_or(1).saturating_mul(each)),
            (None, Some(tasks)) => (per_node.map_or(1, |_| tasks.div_ceil(each)), tasks),
            (Some(nodes), Some(tasks)) => (nodes, tasks),
        };
        let (nodes, tasks) = (nodes.clamp(1, tasks.max(1)), tasks.max(1));
        match per_node {
            Some(per_node) if u64::from(tasks) > u64::from(nodes) * u64::from(each) => {
                Err(LayoutError { tasks, nodes, per_node })
            }
            _ => Ok(Self { nodes, tasks }),
        }
    }

    /// How many nodes.
    pub fn nodes(self) -> u32 {
        self.nodes
    }

    /// How many processes in all.
    pub fn tasks(self) -> u32 {
        self.tasks
    }

    /// The processes of each node.
    pub fn on_nodes(self) -> impl Iterator<Item = u32> {
        let (each, more) = (self.tasks / self.nodes, self.tasks % self.nodes);
        (0..self.nodes).map(move |node| each + u32::from(node < more))
    }

    /// The processes of the first node, which has the most.
    pub fn most(self) -> u32 {
        self.tasks.div_ceil(self.nodes)
    }

    /// The processes of each node as Slurm writes them: `4(x2),3`.
    pub fn text(self) -> String {
        hosts::repeated(self.on_nodes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_mean_what_they_do_to_slurm() {
        for (nodes, tasks, per_node, text) in [
            (None, None, None, "1"),
            (None, Some(4), None, "4"),
            (None, None, Some(3), "3"),
            (Some(2), None, None, "1(x2)"),
            (Some(2), None, Some(4), "4(x2)"),
            (Some(2), Some(3), None, "2,1"),
            (Some(3), Some(5), Some(2), "2(x2),1"),
            (None, Some(8), Some(4), "4(x2)"),
            (Some(4), Some(2), None, "1(x2)"),
        ] {
            assert_eq!(Layout::new(nodes, tasks, per_node).map(Layout::text), Ok(text.to_owned()));
        }
        let error = Layout::new(Some(2), Some(5), Some(2)).unwrap_err();
        assert_eq!(error.to_string(), "--ntasks 5 do not fit on --nodes 2 with --ntasks-per-node 2");
    }

    proptest! {
        #[test]
        fn every_process_has_a_node_and_every_node_a_process(
            nodes in proptest::option::of(1_u32..40),
            tasks in proptest::option::of(1_u32..200),
            per_node in proptest::option::of(1_u32..20),
        ) {
            let Ok(layout) = Layout::new(nodes, tasks, per_node) else { return Ok(()) };
            let on_nodes: Vec<u32> = layout.on_nodes().collect();
            prop_assert_eq!(on_nodes.iter().sum::<u32>(), layout.tasks());
            prop_assert_eq!(on_nodes.len(), layout.nodes() as usize);
            prop_assert!(on_nodes.iter().all(|count| *count > 0 && *count <= layout.most()));
            prop_assert!(per_node.is_none_or(|most| layout.most() <= most));
        }
    }
}
