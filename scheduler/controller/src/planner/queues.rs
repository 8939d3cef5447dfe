//! Declared queues as the line's tree.

use std::collections::BTreeMap;

use muster_scheduler_api::{self as api, DEFAULT_QUEUE};
use muster_scheduler_core::Resources;
use muster_scheduler_queue::tree::{FlavorResource, Preempts, QueueSpec, QueueTree, Quota, TreeError};

/// Why a declared queue is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A quantity cannot be read.
    #[error("queue {queue}: {field} of {resource}: {source}")]
    Quantity {
        /// The queue.
        queue: String,
        /// The field.
        field: &'static str,
        /// The resource.
        resource: String,
        /// Why.
        source: muster_scheduler_core::ParseQuantityError,
    },
    /// The queues do not form a sound tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The declared queues.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    declared: BTreeMap<String, api::QueueSpec>,
    changed: bool,
}

impl Queues {
    pub(crate) fn set(&mut self, name: String, spec: api::QueueSpec) {
        self.changed |= self.declared.get(&name) != Some(&spec);
        self.declared.insert(name, spec);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.changed |= self.declared.remove(name).is_some();
    }

    /// The new tree when queues have changed since the last look.
    pub(crate) fn changed_tree(&mut self) -> Option<Result<QueueTree, QueueError>> {
        std::mem::take(&mut self.changed).then(|| self.tree())
    }

    fn tree(&self) -> Result<QueueTree, QueueError> {
        let mut specs =
            self.declared.iter().map(|(name, spec)| queue(name, spec)).collect::<Result<Vec<_>, _>>()?;
        if !self.declared.contains_key(DEFAULT_QUEUE) {
            specs.push(QueueSpec::new(DEFAULT_QUEUE));
        }
        Ok(QueueTree::build(specs)?)
    }
}

fn queue(name: &str, spec: &api::QueueSpec) -> Result<QueueSpec, QueueError> {
    let mut queue = QueueSpec::new(name);
    queue.parent.clone_from(&spec.parent);
    queue.weight = spec.weight.unwrap_or(1.0);
    queue.within_queue = preempts(spec.preemption.within_queue);
    queue.reclaim = preempts(spec.preemption.reclaim);
    for quota in &spec.quotas {
        let resource = &quota.resource;
        let read = |field, quantity: &str| {
            let mut amounts = Resources::new();
            let read = amounts.add_quantity(resource, quantity).map(|()| amounts.get(resource));
            read.map_err(|source| QueueError::Quantity {
                queue: name.to_owned(),
                field,
                resource: resource.clone(),
                source,
            })
        };
        let optional =
            |field, quantity: Option<&str>| quantity.map(|quantity| read(field, quantity)).transpose();
        let read = Quota {
            nominal: read("nominal", &quota.nominal.0)?,
            borrowing_limit: optional(
                "borrowingLimit",
                quota.borrowing_limit.as_ref().map(|limit| limit.0.as_str()),
            )?,
            lending_limit: optional(
                "lendingLimit",
                quota.lending_limit.as_ref().map(|limit| limit.0.as_str()),
            )?,
        };
        queue.quotas.insert(FlavorResource::new("", resource), read);
    }
    Ok(queue)
}

fn preempts(declared: api::Preempts) -> Preempts {
    match declared {
        api::Preempts::Never => Preempts::Never,
        api::Preempts::LowerPriority => Preempts::LowerPriority,
        api::Preempts::Any => Preempts::Any,
    }
}
