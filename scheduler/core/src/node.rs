//! What the ledger knows of a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_topology::NodeInterior;

use crate::resources::Resources;

/// What is written on a node of the links between its GPUs.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum GpuTopology {
    /// Nothing.
    #[default]
    Unsaid,
    /// These links.
    Links(Arc<NodeInterior>),
    /// Something that cannot be understood, and why.
    Unreadable(String),
}

/// A machine that can run pods.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints; `NoSchedule` and `NoExecute` keep pods away that do not tolerate them.
    pub taints: Vec<Taint>,
    /// Ready, and not cordoned.
    pub schedulable: bool,
    /// What pods may use in total.
    pub allocatable: Resources,
    /// How many GPU slots it has.
    pub gpu_slots: u32,
    /// The links between its GPUs, as somebody wrote them on it.
    pub gpu_topology: GpuTopology,
}

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Effect, such as `NoSchedule`.
    pub effect: String,
}

/// A toleration of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Toleration {
    /// Key; `None` tolerates every key.
    pub key: Option<String>,
    /// Value to match; `None` matches every value (operator `Exists`).
    pub value: Option<String>,
    /// Effect; `None` tolerates every effect.
    pub effect: Option<String>,
}

impl Toleration {
    fn tolerates(&self, taint: &Taint) -> bool {
        self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
            && self.effect.as_ref().is_none_or(|effect| *effect == taint.effect)
    }
}

/// One requirement of a node selector term.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    DoesNotExist(String),
    /// The label is a number above this one.
    Greater(String, i64),
    /// The label is a number below this one.
    Less(String, i64),
    /// The node's name is one of these (`matchFields`).
    NameIn(Vec<String>),
    /// The node's name is none of these.
    NameNotIn(Vec<String>),
}

impl Requirement {
    pub(crate) fn holds(&self, node: &Node) -> bool {
        let label = |key: &String| node.labels.get(key);
        let number = |key: &String| label(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => label(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => label(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => label(key).is_some(),
            Self::DoesNotExist(key) => label(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
            Self::NameIn(names) => names.contains(&node.name),
            Self::NameNotIn(names) => !names.contains(&node.name),
        }
    }
}

/// Why a node cannot take a pod whatever is free on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Not ready or cordoned.
    Unschedulable,
    /// The node selector or required affinity does not match.
    Selector,
    /// A taint that the pod does not tolerate.
    Taint(String),
}

/// What a pod asks of its node whatever is free there.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Labels that the node must have.
    pub node_selector: &'a BTreeMap<String, String>,
    /// Terms of which one must hold; empty means any node.
    pub required_affinity: &'a [Vec<Requirement>],
    /// Taints that the pod stands.
    pub tolerations: &'a [Toleration],
}

impl Node {
    /// Why this node cannot take such a pod at all; `None` when it can, space permitting.
    pub fn unfit_for(&self, pod: Selection<'_>) -> Option<Unfit> {
        if !self.schedulable {
            return Some(Unfit::Unschedulable);
        }
        let selected = pod.node_selector.iter().all(|(key, value)| self.labels.get(key) == Some(value));
        let terms = pod.required_affinity;
        let affine = terms.is_empty()
            || terms.iter().any(|term| term.iter().all(|requirement| requirement.holds(self)));
        if !selected || !affine {
            return Some(Unfit::Selector);
        }
        let repels = |taint: &&Taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
                && !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint))
        };
        self.taints.iter().find(repels).map(|taint| Unfit::Taint(taint.key.clone()))
    }
}
