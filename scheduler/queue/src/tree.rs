//! Hierarchical queues and their quota: who may use how much, who borrows, who lends.
//!
//! Queues form a forest of any depth. A queue's *room to use* is its own nominal quota plus what its children
//! lend upwards; what it does not lend it keeps for itself. Usage beyond what a queue keeps is counted at its
//! parent too, so that adding, removing and asking touch only the path to the root.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::charge::Charge;
pub use crate::spec::{FlavorResource, Preempts, QueueSpec, Quota, TreeError};

/// What is available of a resource that nobody limits.
const UNLIMITED: i64 = i64::MAX / 4;

/// A queue by its place in a [`QueueTree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u32);

impl QueueId {
    /// Its index: queues are numbered from 0 in the order in which they were given.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What never changes while usage does.
#[derive(Debug)]
struct Forest {
    specs: Vec<QueueSpec>,
    by_name: BTreeMap<String, QueueId>,
    parents: Vec<Option<QueueId>>,
    roots: Vec<QueueId>,
    children: Vec<Vec<QueueId>>,
    top: Vec<QueueId>,
    resources: Vec<FlavorResource>,
    /// By queue and resource.
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    /// Own nominal quota and what children lend.
    room: i64,
    /// The part of `room` that is not lent.
    kept: i64,
    borrowing_limit: Option<i64>,
    /// Whether this queue or one below it has quota.
    limited: bool,
}

/// Queues, their quota, and what is used of it. Cheap to clone: only usage is copied.
#[derive(Debug, Clone)]
pub struct QueueTree {
    forest: Arc<Forest>,
    /// By queue and resource: own usage and what children use beyond what they keep.
    usage: Vec<i64>,
}

impl QueueTree {
    /// Builds the tree.
    ///
    /// # Errors
    /// [`TreeError`] for the first fault found.
    pub fn build(specs: Vec<QueueSpec>) -> Result<Self, TreeError> {
        let mut by_name = BTreeMap::new();
        for (index, spec) in specs.iter().enumerate() {
            if by_name.insert(spec.name.clone(), QueueId(index as u32)).is_some() {
                return Err(TreeError::Duplicate(spec.name.clone()));
            }
            if !(spec.weight.is_finite() && spec.weight > 0.0) {
                return Err(TreeError::Weight(spec.name.clone()));
            }
            spec.check_signs()?;
        }
        let parents = find_parents(&specs, &by_name)?;
        let roots = find_roots(&specs, &parents)?;
        let mut children = vec![Vec::new(); specs.len()];
        let mut top = Vec::new();
        for (index, parent) in parents.iter().enumerate() {
            let queue = QueueId(index as u32);
            match parent {
                Some(parent) => children[parent.index()].push(queue),
                None => top.push(queue),
            }
        }
        let mut resources: Vec<FlavorResource> =
            specs.iter().flat_map(|spec| spec.quotas.keys().cloned()).collect();
        resources.sort();
        resources.dedup();
        let mut forest =
            Forest { specs, by_name, parents, roots, children, top, resources, cells: Vec::new() };
        forest.cells = vec![Cell::default(); forest.specs.len() * forest.resources.len()];
        for root in forest.top.clone() {
            forest.fill_cells(root)?;
        }
        let usage = vec![0; forest.cells.len()];
        Ok(Self { forest: Arc::new(forest), usage })
    }

    /// One queue called `name`, without any limit.
    pub fn unlimited(name: &str) -> Self {
        let forest = Forest {
            specs: vec![QueueSpec::new(name)],
            by_name: BTreeMap::from([(name.to_owned(), QueueId(0))]),
            parents: vec![None],
            roots: vec![QueueId(0)],
            children: vec![Vec::new()],
            top: vec![QueueId(0)],
            resources: Vec::new(),
            cells: Vec::new(),
        };
        Self { forest: Arc::new(forest), usage: Vec::new() }
    }

    /// A queue by name.
    pub fn queue(&self, name: &str) -> Option<QueueId> {
        self.forest.by_name.get(name).copied()
    }

    /// How a queue was declared.
    pub fn spec(&self, queue: QueueId) -> &QueueSpec {
        &self.forest.specs[queue.index()]
    }

    /// Its name.
    pub fn name(&self, queue: QueueId) -> &str {
        &self.spec(queue).name
    }

    /// All queues, in the order in which they were given.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> + use<> {
        (0..self.forest.specs.len() as u32).map(QueueId)
    }

    /// Queues without a parent.
    pub fn top(&self) -> &[QueueId] {
        &self.forest.top
    }

    /// The queues directly below.
    pub fn children(&self, queue: QueueId) -> &[QueueId] {
        &self.forest.children[queue.index()]
    }

    /// The queue above.
    pub fn parent(&self, queue: QueueId) -> Option<QueueId> {
        self.forest.parents[queue.index()]
    }

    /// The topmost queue above (or the queue itself): quota never crosses from one root to another.
    pub fn root(&self, queue: QueueId) -> QueueId {
        self.forest.roots[queue.index()]
    }

    /// The queue and all above it, upwards.
    pub fn path(&self, queue: QueueId) -> impl Iterator<Item = QueueId> + '_ {
        std::iter::successors(Some(queue), |queue| self.parent(*queue))
    }

    /// The resources that have quota anywhere; a [`Charge`] names them by index.
    pub fn resources(&self) -> &[FlavorResource] {
        &self.forest.resources
    }

    /// What `amounts` (thousandths) use of the quota of this tree; resources that have quota nowhere are not limited.
    pub fn charge<'a>(&self, amounts: impl IntoIterator<Item = (&'a FlavorResource, i64)>) -> Charge {
        let index = |resource: &FlavorResource| self.forest.resources.binary_search(resource).ok();
        Charge::new(amounts, |resource| index(resource).map(|index| index as u16))
    }

    /// What some charges together ask for beyond another one.
    pub fn beyond(&self, kept: &Charge, asked: [&Charge; 2]) -> Charge {
        let mut beyond: BTreeMap<&FlavorResource, i64> = BTreeMap::new();
        for (resource, amount) in asked.into_iter().flat_map(Charge::asked) {
            *beyond.entry(resource).or_default() += amount;
        }
        for (resource, amount) in kept.asked() {
            *beyond.entry(resource).or_default() -= amount;
        }
        self.charge(beyond)
    }

    /// The same amounts as a charge that was made by another tree.
    pub fn recharge(&self, charge: &Charge) -> Charge {
        self.charge(charge.asked())
    }

    /// What the queue itself may use without borrowing, in thousandths: its nominal quota and what its
    /// children lend.
    pub fn room(&self, queue: QueueId, resource: u16) -> i64 {
        self.cell(queue, resource).room
    }

    /// What is counted at the queue, in thousandths: its jobs, and what queues below it use beyond what they
    /// keep for themselves.
    pub fn used(&self, queue: QueueId, resource: u16) -> i64 {
        self.usage[self.slot(queue, resource)]
    }

    /// What it uses beyond its own, in thousandths.
    pub fn borrowed(&self, queue: QueueId, resource: u16) -> i64 {
        (self.used(queue, resource) - self.room(queue, resource)).max(0)
    }

    /// What a job of this queue could use now, its own and borrowed, in thousandths; negative where quota was
    /// lowered below usage. A resource for which no queue under the same root has quota is not limited.
    pub fn available(&self, queue: QueueId, resource: u16) -> i64 {
        let cell = self.cell(queue, resource);
        let used = self.used(queue, resource);
        let Some(parent) = self.parent(queue) else {
            return if cell.limited { cell.room - used } else { UNLIMITED };
        };
        let of_kept = (cell.kept - used).max(0);
        let mut from_parent = self.available(parent, resource);
        if let Some(limit) = cell.borrowing_limit {
            let used_above = (used - cell.kept).max(0);
            from_parent =
                from_parent.min((cell.room - cell.kept).saturating_sub(used_above).saturating_add(limit));
        }
        of_kept.saturating_add(from_parent)
    }

    /// Counts a charge as used.
    pub fn add(&mut self, queue: QueueId, charge: &Charge) {
        for (resource, amount) in charge.iter() {
            let (mut queue, mut amount) = (queue, amount);
            loop {
                let slot = self.slot(queue, resource);
                let of_kept = (self.forest.cells[slot].kept - self.usage[slot]).max(0);
                self.usage[slot] += amount;
                amount -= of_kept;
                match self.parent(queue) {
                    Some(parent) if amount > 0 => queue = parent,
                    _ => break,
                }
            }
        }
    }

    /// Gives a charge back that was added before.
    pub fn remove(&mut self, queue: QueueId, charge: &Charge) {
        for (resource, amount) in charge.iter() {
            let (mut queue, mut amount) = (queue, amount);
            loop {
                let slot = self.slot(queue, resource);
                let above = self.usage[slot] - self.forest.cells[slot].kept;
                self.usage[slot] -= amount;
                amount = amount.min(above);
                match self.parent(queue) {
                    Some(parent) if amount > 0 => queue = parent,
                    _ => break,
                }
            }
        }
    }

    /// The same tree with nothing used.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { forest: Arc::clone(&self.forest), usage: vec![0; self.usage.len()] }
    }

    fn slot(&self, queue: QueueId, resource: u16) -> usize {
        queue.index() * self.forest.resources.len() + usize::from(resource)
    }

    fn cell(&self, queue: QueueId, resource: u16) -> Cell {
        self.forest.cells[self.slot(queue, resource)]
    }
}

impl Forest {
    /// Sums what the queues below lend, from the leaves upwards.
    fn fill_cells(&mut self, queue: QueueId) -> Result<(), TreeError> {
        for child in self.children[queue.index()].clone() {
            self.fill_cells(child)?;
        }
        let width = self.resources.len();
        for index in 0..width {
            let resource = &self.resources[index];
            let spec = &self.specs[queue.index()];
            let quota = spec.quotas.get(resource).copied().unwrap_or_default();
            let limited = spec.quotas.contains_key(resource)
                || self.children[queue.index()]
                    .iter()
                    .any(|child| self.cells[child.index() * width + index].limited);
            let lent_upwards = self.children[queue.index()].iter().map(|child| {
                let cell = self.cells[child.index() * width + index];
                cell.room - cell.kept
            });
            let room = lent_upwards.fold(quota.nominal, i64::saturating_add);
            if let Some(lending) = quota.lending_limit.filter(|lending| *lending > room) {
                let (queue, resource) = (spec.name.clone(), resource.clone());
                return Err(TreeError::LendsTooMuch { queue, resource, lending, has: room });
            }
            let kept = quota.lending_limit.map_or(0, |lending| room - lending);
            self.cells[queue.index() * width + index] =
                Cell { room, kept, borrowing_limit: quota.borrowing_limit, limited };
        }
        Ok(())
    }
}

fn find_parents(
    specs: &[QueueSpec],
    by_name: &BTreeMap<String, QueueId>,
) -> Result<Vec<Option<QueueId>>, TreeError> {
    let find = |spec: &QueueSpec| match &spec.parent {
        None => Ok(None),
        Some(parent) => by_name
            .get(parent)
            .copied()
            .map(Some)
            .ok_or_else(|| TreeError::UnknownParent { queue: spec.name.clone(), parent: parent.clone() }),
    };
    specs.iter().map(find).collect()
}

/// The root above each queue; a walk longer than there are queues has met a cycle.
fn find_roots(specs: &[QueueSpec], parents: &[Option<QueueId>]) -> Result<Vec<QueueId>, TreeError> {
    let mut roots = Vec::with_capacity(specs.len());
    for start in 0..specs.len() {
        let mut walked = vec![QueueId(start as u32)];
        let mut at = start;
        while let Some(parent) = parents[at] {
            if let Some(first) = walked.iter().position(|queue| *queue == parent) {
                let ring = walked[first..].iter().chain([&parent]);
                return Err(TreeError::Cycle(ring.map(|queue| specs[queue.index()].name.clone()).collect()));
            }
            walked.push(parent);
            at = parent.index();
        }
        roots.push(QueueId(at as u32));
    }
    Ok(roots)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
