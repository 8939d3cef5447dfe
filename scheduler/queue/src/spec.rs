//! Queues as they are declared.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One resource of one flavor (kind of node), such as GPUs of `h100`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlavorResource {
    /// The flavor; empty where all nodes are alike.
    pub flavor: String,
    /// The resource, such as `nvidia.com/gpu`.
    pub resource: String,
}

impl FlavorResource {
    /// A resource of a flavor.
    pub fn new(flavor: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { flavor: flavor.into(), resource: resource.into() }
    }
}

impl fmt::Display for FlavorResource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.flavor.is_empty() {
            formatter.write_str(&self.resource)
        } else {
            write!(formatter, "{} of flavor {}", self.resource, self.flavor)
        }
    }
}

/// What a queue has of one resource, in thousandths of its unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// What is its own.
    pub nominal: i64,
    /// The most it may use beyond its own; `None` for as much as others lend.
    pub borrowing_limit: Option<i64>,
    /// The most of its own that others may use while it does not; `None` for all of it.
    pub lending_limit: Option<i64>,
}

/// Whom a queue's jobs may evict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preempts {
    /// Nobody.
    Never,
    /// Jobs of lower priority.
    #[default]
    LowerPriority,
    /// Jobs of any priority.
    Any,
}

/// A queue as it is declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueSpec {
    /// Name, unique in the tree.
    pub name: String,
    /// Name of the queue (cohort) above it.
    pub parent: Option<String>,
    /// Its weight in the fair share among its siblings; above 0.
    pub weight: f64,
    /// Quota by resource.
    pub quotas: BTreeMap<FlavorResource, Quota>,
    /// Whom its jobs may evict within this queue.
    pub within_queue: Preempts,
    /// Whom its jobs may evict to take back quota that others borrowed.
    pub reclaim: Preempts,
}

impl QueueSpec {
    /// A queue of weight 1 without quota of its own, which reclaims from anyone.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            parent: None,
            weight: 1.0,
            quotas: BTreeMap::new(),
            within_queue: Preempts::LowerPriority,
            reclaim: Preempts::Any,
        }
    }

    /// The same below `parent`.
    #[must_use]
    pub fn below(mut self, parent: impl Into<String>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// The same with a quota.
    #[must_use]
    pub fn with_quota(mut self, resource: FlavorResource, quota: Quota) -> Self {
        self.quotas.insert(resource, quota);
        self
    }

    /// No quantity may be negative.
    pub(crate) fn check_signs(&self) -> Result<(), TreeError> {
        for (resource, quota) in &self.quotas {
            let fields = [
                ("nominalQuota", Some(quota.nominal)),
                ("borrowingLimit", quota.borrowing_limit),
                ("lendingLimit", quota.lending_limit),
            ];
            for (field, amount) in fields {
                if let Some(amount) = amount.filter(|amount| *amount < 0) {
                    let (queue, resource) = (self.name.clone(), resource.clone());
                    return Err(TreeError::Negative { queue, field, resource, amount });
                }
            }
        }
        Ok(())
    }
}

/// Why queues do not form a tree with sound quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Two queues of one name.
    #[error("queue {0} is declared twice; names must be unique")]
    Duplicate(String),
    /// The parent is not there.
    #[error("queue {queue}: parent {parent} does not exist; declare it or leave the field out")]
    UnknownParent {
        /// The queue.
        queue: String,
        /// Its parent.
        parent: String,
    },
    /// A queue is its own ancestor.
    #[error("queues form a cycle: {}; one of them must have another parent or none", .0.join(" is below "))]
    Cycle(Vec<String>),
    /// A quantity is negative.
    #[error("queue {queue}: {field} of {resource} is {amount}, and must not be negative")]
    Negative {
        /// The queue.
        queue: String,
        /// The field.
        field: &'static str,
        /// The resource.
        resource: FlavorResource,
        /// The amount in thousandths.
        amount: i64,
    },
    /// A queue would lend more than it has.
    #[error("queue {queue}: lendingLimit of {resource} is {lending}, above the {has} it has to lend")]
    LendsTooMuch {
        /// The queue.
        queue: String,
        /// The resource.
        resource: FlavorResource,
        /// The limit in thousandths.
        lending: i64,
        /// What it has, its children's lendings included, in thousandths.
        has: i64,
    },
    /// The weight is no positive number.
    #[error("queue {0}: weight must be a number above 0")]
    Weight(String),
}
