//! Declared queues as the line's tree.

use std::collections::BTreeMap;

use muster_scheduler_api::{self as api, DEFAULT_QUEUE};
use muster_scheduler_core::Resources;
use muster_scheduler_queue::tree::{FlavorResource, Preempts, QueueSpec, QueueTree, Quota, TreeError};

/// Why a declared queue is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A quantity cannot be read.
    #[error("{field} of {resource}: {source}")]
    Quantity {
        /// The field.
        field: &'static str,
        /// The resource.
        resource: String,
        /// Why.
        source: muster_scheduler_core::ParseQuantityError,
    },
    /// It does not fit into the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The declared queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queues {
    declared: BTreeMap<String, api::QueueSpec>,
    /// As they were when they were sound last, where they are not.
    sound: BTreeMap<String, api::QueueSpec>,
    wrong: BTreeMap<String, QueueError>,
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

    /// Names of those that are declared.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().map(String::as_str)
    }

    /// A queue as it is declared.
    pub(crate) fn declared(&self, name: &str) -> Option<&api::QueueSpec> {
        self.declared.get(name)
    }

    /// Why a declared queue is not in force, or not as it is declared.
    pub(crate) fn error(&self, name: &str) -> Option<&QueueError> {
        self.wrong.get(name)
    }

    /// Quality of service of a queue's jobs: its own, or that of the nearest queue above that has one.
    pub(crate) fn quality(&self, queue: &str) -> i32 {
        let above = std::iter::successors(self.sound.get(queue), |spec| {
            spec.parent.as_ref().and_then(|parent| self.sound.get(parent))
        });
        // Queues that are kept as they were may name each other in a circle.
        above.take(self.sound.len()).find_map(|spec| spec.quality).unwrap_or_default()
    }

    /// Why jobs cannot be in a queue that is not in force.
    pub(crate) fn what_is_wrong_with(&self, name: &str) -> String {
        self.wrong.get(name).map_or_else(
            || {
                format!(
                    "queue {name} does not exist; create it, or name another by the label muster.dev/queue"
                )
            },
            |error| format!("queue {name} is not in force: {error}"),
        )
    }

    /// The new tree when queues have changed since the last look. A queue that makes no sense stays as it was, or is
    /// left out when it never did make sense; the others do not suffer from it.
    pub(crate) fn changed_tree(&mut self) -> Option<QueueTree> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.wrong.clear();
        self.sound.retain(|name, _| self.declared.contains_key(name));
        let mut specs = BTreeMap::new();
        for (name, declared) in &self.declared {
            match queue(name, declared) {
                Ok(spec) => {
                    specs.insert(name.clone(), spec);
                }
                Err(error) => {
                    let before = self.sound.get(name).and_then(|before| queue(name, before).ok());
                    specs.extend(before.map(|spec| (name.clone(), spec)));
                    self.wrong.insert(name.clone(), error);
                }
            }
        }
        specs.entry(DEFAULT_QUEUE.to_owned()).or_insert_with(|| QueueSpec::new(DEFAULT_QUEUE));
        // Each round takes one queue back or out, so it ends.
        let tree = loop {
            let error = match QueueTree::build(specs.values().cloned().collect()) {
                Ok(tree) => break tree,
                Err(error) => error,
            };
            let name = guilty(&error).to_owned();
            let again = self.wrong.contains_key(&name);
            let before = self.sound.get(&name).filter(|_| !again).and_then(|spec| queue(&name, spec).ok());
            match before {
                Some(before) => {
                    specs.insert(name.clone(), before);
                }
                None if name == DEFAULT_QUEUE => {
                    specs.insert(name.clone(), QueueSpec::new(DEFAULT_QUEUE));
                }
                None => {
                    specs.remove(&name);
                }
            }
            self.wrong.insert(name, error.into());
        };
        let sound = self.declared.iter().filter(|(name, _)| !self.wrong.contains_key(*name));
        self.sound.extend(sound.map(|(name, spec)| (name.clone(), spec.clone())));
        Some(tree)
    }
}

/// The queue of which an error speaks.
fn guilty(error: &TreeError) -> &str {
    match error {
        TreeError::Duplicate(queue)
        | TreeError::Weight(queue)
        | TreeError::UnknownParent { queue, .. }
        | TreeError::Negative { queue, .. }
        | TreeError::LendsTooMuch { queue, .. } => queue,
        TreeError::Cycle(queues) => queues.first().map_or(DEFAULT_QUEUE, String::as_str),
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
            read.map_err(|source| QueueError::Quantity { field, resource: resource.clone(), source })
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
