//! The future: when running jobs are supposed to end, what is promised to whom, which nodes are set aside, and
//! hence the earliest time at which a job fits, with its places.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_scheduler_core::room::Room;
use muster_scheduler_core::search::Slots;
use muster_scheduler_core::space::{NodeId, Space};

use crate::calendar::{Calendar, Purpose};
use crate::idle::Idle;
use crate::job::{Form, Hold, JobId};
use crate::time::{Milliseconds, Time};
use crate::tree::{QueueId, QueueTree};

/// Who wants to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) queue: QueueId,
    pub(crate) form: &'a Form,
    pub(crate) length: Milliseconds,
    /// The advance reservation whose windows are open to it.
    pub(crate) reservation: Option<&'a str>,
}

/// What happens at a moment, in the order in which it does: what is given back is there for who begins then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ends,
    Begins,
}

#[derive(Debug, Clone)]
struct Change {
    at: Time,
    kind: Kind,
    job: JobId,
    hold: Arc<Hold>,
}

impl Change {
    fn key(&self) -> (Time, Kind, JobId) {
        (self.at, self.kind, self.job)
    }
}

/// Nodes set aside for some time.
#[derive(Debug, Clone)]
struct Closure {
    from: Time,
    to: Time,
    nodes: BTreeSet<NodeId>,
    admits: Option<String>,
}

/// Free room and quota at a moment.
#[derive(Debug, Clone)]
struct State {
    space: Space,
    tree: QueueTree,
}

impl State {
    fn apply(&mut self, change: &Change) {
        let Hold { queue, form, slots } = &*change.hold;
        match change.kind {
            Kind::Ends => {
                self.space.give_back_slots(&form.demand, slots);
                self.tree.remove(*queue, &form.charge);
            }
            Kind::Begins => {
                self.space.take_slots(&form.demand, slots);
                self.tree.add(*queue, &form.charge);
            }
        }
    }

    /// Whether the form could fit, looking at sums only.
    fn may_hold(&mut self, request: &Request<'_>) -> bool {
        self.tree.admits(request.queue, &request.form.charge)
            && request.form.demand.groups.iter().all(|group| self.space.fits(&group.shape) >= group.count)
    }
}

/// What is free from now on without interruption up to after some of the promises have begun.
#[derive(Debug, Clone)]
struct Throughout {
    least: Space,
    /// Quota after each promise within has begun, with the time when it does and the root of its queue.
    trees: Vec<(Time, QueueId, QueueTree)>,
}

/// The future as it is supposed to be.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    now: Time,
    state: State,
    /// Sorted.
    changes: Vec<Change>,
    closures: Vec<Closure>,
    /// When promises begin, sorted.
    begins: Vec<Time>,
    /// By the number of promises within the span; filled when asked for.
    throughout: BTreeMap<usize, Throughout>,
    /// When nodes are idle, where jobs are to end together.
    idle: Option<Idle>,
}

impl Timeline {
    /// The future from `now` on, with the free room and the usage of now.
    pub(crate) fn new(
        now: Time,
        space: Space,
        tree: QueueTree,
        running: impl Iterator<Item = (JobId, Time, Arc<Hold>)>,
        calendar: &Calendar,
    ) -> Self {
        let mut changes: Vec<Change> = running
            .map(|(job, ends, hold)| Change { at: ends.max(now + 1), kind: Kind::Ends, job, hold })
            .collect();
        changes.sort_by_key(Change::key);
        // Recurring windows are looked at for the next year; nothing is planned beyond.
        let horizon = now + 366 * 24 * 3_600_000;
        let closures = calendar.occurrences(now, horizon).into_iter().take(4096).map(|occurrence| Closure {
            from: occurrence.from,
            to: occurrence.to,
            nodes: occurrence.window.nodes.clone(),
            admits: match &occurrence.window.purpose {
                Purpose::Maintenance => None,
                Purpose::Reserved(name) => Some(name.clone()),
            },
        });
        let closures = closures.collect();
        let (begins, throughout) = (Vec::new(), BTreeMap::new());
        Self { now, state: State { space, tree }, changes, closures, begins, throughout, idle: None }
    }

    /// Puts jobs together that end together, from now on.
    pub(crate) fn end_together(&mut self) {
        let running = self.changes.iter().map(|change| (&*change.hold, change.at));
        self.idle = Some(Idle::new(self.now, running));
    }

    /// The moment it starts from.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// What is free now.
    pub(crate) fn space(&self) -> &Space {
        &self.state.space
    }

    /// The same, to be asked; what is free is not to be changed.
    pub(crate) fn space_mut(&mut self) -> &mut Space {
        &mut self.state.space
    }

    /// Quota as it is used now.
    pub(crate) fn tree(&self) -> &QueueTree {
        &self.state.tree
    }

    /// Whether sums of room and quota allow the form to start now.
    pub(crate) fn may_start(&mut self, request: &Request<'_>) -> bool {
        self.state.may_hold(request)
    }

    /// Places where the job can start now and stay without delaying anything promised.
    pub(crate) fn start_now(&mut self, request: &Request<'_>) -> Option<Slots> {
        if !self.state.may_hold(request) {
            return None;
        }
        let until = self.now + request.length;
        let begins = self.begins_before(until);
        let closed = self.closed(request, self.now, until);
        if begins == 0 && closed.is_empty() {
            return find(self.idle.as_ref(), &mut self.state.space, request);
        }
        if begins == 0 {
            let mut least = self.state.space.clone();
            close(&mut least, &closed);
            return find(self.idle.as_ref(), &mut least, request);
        }
        let within = match self.throughout.remove(&begins) {
            Some(known) => known,
            // What has no room at the moment has none throughout.
            None if self.state.space.find(&request.form.demand).is_none() => return None,
            None => self.throughout(begins),
        };
        let within = self.throughout.entry(begins).or_insert(within);
        // What begins under other roots leaves this quota alone.
        let root = self.state.tree.root(request.queue);
        let mut trees = within.trees.iter().filter(|(_, of, _)| *of == root);
        if !trees.all(|(_, _, tree)| tree.admits(request.queue, &request.form.charge)) {
            return None;
        }
        if closed.is_empty() {
            return find(self.idle.as_ref(), &mut within.least, request);
        }
        let mut least = within.least.clone();
        close(&mut least, &closed);
        find(self.idle.as_ref(), &mut least, request)
    }

    /// A job starts now and is supposed to end at `ends`.
    pub(crate) fn start(&mut self, job: JobId, hold: Arc<Hold>, ends: Time) {
        let begin = Change { at: self.now, kind: Kind::Begins, job, hold: Arc::clone(&hold) };
        self.state.apply(&begin);
        if let Some(idle) = &mut self.idle {
            idle.note(&hold, ends);
        }
        let root = self.state.tree.root(hold.queue);
        for within in self.throughout.values_mut() {
            within.least.take_slots(&hold.form.demand, &hold.slots);
            for (_, _, tree) in within.trees.iter_mut().filter(|(at, of, _)| *at < ends && *of == root) {
                tree.add(hold.queue, &hold.form.charge);
            }
        }
        self.insert(Change { at: ends.max(self.now + 1), kind: Kind::Ends, job, hold });
    }

    /// Gives back now what a running job has, as if it were evicted.
    pub(crate) fn evict(&mut self, job: JobId) -> bool {
        let Some(index) =
            self.changes.iter().position(|change| change.job == job && change.kind == Kind::Ends)
        else {
            return false;
        };
        let change = self.changes.remove(index);
        self.state.apply(&change);
        self.throughout.clear();
        true
    }

    /// Promises room from a later moment on.
    pub(crate) fn promise(&mut self, job: JobId, hold: &Arc<Hold>, from: Time, length: Milliseconds) {
        self.insert(Change { at: from, kind: Kind::Begins, job, hold: Arc::clone(hold) });
        self.insert(Change { at: from + length, kind: Kind::Ends, job, hold: Arc::clone(hold) });
        self.begins.insert(self.begins.partition_point(|begin| *begin < from), from);
        self.throughout.clear();
    }

    /// Takes a promise back.
    pub(crate) fn forget(&mut self, job: JobId) {
        let promised = self.changes.iter().find(|change| change.kind == Kind::Begins && change.job == job);
        if let Some(from) = promised.map(|change| change.at) {
            self.changes.retain(|change| change.job != job);
            self.begins.remove(self.begins.partition_point(|begin| *begin < from));
            self.throughout.clear();
        }
    }

    /// How much stands against a job of this length that starts now: promises and windows that begin before it
    /// ends. Of two jobs that ask for the same, the one with more against it fits only where the other does.
    pub(crate) fn constraints(&self, length: Milliseconds) -> usize {
        let until = self.now + length;
        self.begins_before(until) + self.closures.iter().filter(|closure| closure.from < until).count()
    }

    /// Whether a promise can be kept: its very places are free at `from` and throughout.
    pub(crate) fn keeps(&self, request: &Request<'_>, slots: &Slots, from: Time) -> bool {
        let mut state = self.state.clone();
        let mut next = 0;
        while let Some(change) = self.changes.get(next).filter(|change| change.at <= from) {
            state.apply(change);
            next += 1;
        }
        if !state.tree.admits(request.queue, &request.form.charge) {
            return false;
        }
        let until = from + request.length;
        if self.closed(request, from, until).iter().any(|node| slots.0.iter().any(|slot| slot.node == *node))
        {
            return false;
        }
        let touched: BTreeSet<NodeId> = slots.0.iter().map(|slot| slot.node).collect();
        let mut least = state.space.clone();
        if !self.lower_until(&mut state, &mut least, next, until, request, Some(&touched)) {
            return false;
        }
        for slot in &slots.0 {
            let shape = &request.form.demand.groups[slot.group].shape;
            let room = least.room(slot.node);
            let devices = slot.devices.iter().all(|device| {
                let each =
                    if shape.gpu.thousandths() >= 1000 { 1000 } else { shape.gpu.thousandths() as u16 };
                room.devices.left().get(usize::from(*device)).is_some_and(|left| *left >= each)
            });
            let claimed = slot.granted.as_ref().is_none_or(|grant| least.has_granted(slot.node, grant));
            if !devices || !claimed || shape.times_in(room) == 0 {
                return false;
            }
            least.take_slot(shape, slot);
        }
        true
    }

    /// Places that are free from a later moment on, for as long as is asked for.
    pub(crate) fn places_at(&self, request: &Request<'_>, at: Time) -> Option<Slots> {
        let mut state = self.state.clone();
        let next = self.changes.partition_point(|change| change.at <= at);
        for change in &self.changes[..next] {
            state.apply(change);
        }
        if state.may_hold(request) { self.fits_from(&mut state, next, at, request) } else { None }
    }

    /// The earliest moment, no later than `latest`, at which the job fits, with its places.
    pub(crate) fn earliest(&self, request: &Request<'_>, latest: Time) -> Option<(Time, Slots)> {
        let mut state = self.state.clone();
        let reopens =
            self.closures.iter().filter(|closure| !closure.is_open_to(request)).map(|closure| closure.to);
        let mut reopens: Vec<Time> = reopens.filter(|to| *to > self.now && *to <= latest).collect();
        reopens.sort_unstable();
        let mut reopens = reopens.into_iter().peekable();
        let mut next = 0;
        let mut at = self.now;
        let mut released = true;
        loop {
            while let Some(change) = self.changes.get(next).filter(|change| change.at <= at) {
                released |= change.kind == Kind::Ends;
                state.apply(change);
                next += 1;
            }
            if released
                && state.may_hold(request)
                && let Some(slots) = self.fits_from(&mut state, next, at, request)
            {
                return Some((at, slots));
            }
            released = false;
            let change = self.changes.get(next).map(|change| change.at);
            let reopen = reopens.peek().copied();
            at = match (change, reopen) {
                (Some(change), Some(reopen)) => change.min(reopen),
                (Some(moment), None) | (None, Some(moment)) => moment,
                (None, None) => return None,
            };
            if at > latest {
                return None;
            }
            while reopens.next_if(|reopen| *reopen <= at).is_some() {
                released = true;
            }
        }
    }

    /// Places free at `at` and throughout; `state` is that of `at`, with the changes before `next` applied.
    fn fits_from(&self, state: &mut State, next: usize, at: Time, request: &Request<'_>) -> Option<Slots> {
        let found = state.space.find(&request.form.demand)?;
        let until = at + request.length;
        let closed = self.closed(request, at, until);
        let takes = self.changes[next..].iter().take_while(|change| change.at < until);
        let mut least = state.space.clone();
        let slots = if takes.clone().any(|change| change.kind == Kind::Begins) || !closed.is_empty() {
            close(&mut least, &closed);
            let mut future = state.clone();
            if !self.lower_until(&mut future, &mut least, next, until, request, None) {
                return None;
            }
            least.find(&request.form.demand)?
        } else {
            found
        };
        Some(if at == self.now { slots } else { self.off_idle_nodes(least, request, slots) })
    }

    /// Places that leave as many of the nodes that are idle now alone as can be: others may use these until then
    /// and beyond, whereas nodes that are busy until then are of no use to anybody else.
    fn off_idle_nodes(&self, mut least: Space, request: &Request<'_>, found: Slots) -> Slots {
        let free = |node: &NodeId| self.state.space.room(*node).devices.thousandths();
        let mut idle: Vec<NodeId> =
            self.state.space.nodes().map(|(node, _)| node).filter(|node| free(node) > 0).collect();
        idle.sort_by_key(|node| (std::cmp::Reverse(free(node)), *node));
        let mut best = found;
        let (mut fits, mut fails) = (0, idle.len() + 1);
        while fits + 1 < fails {
            let middle = usize::midpoint(fits, fails);
            let mut without = least.clone();
            for node in &idle[fits..middle.min(idle.len())] {
                without.lower(*node, &Room::default());
            }
            match without.find(&request.form.demand) {
                Some(slots) => (best, least, fits) = (slots, without, middle),
                None => fails = middle,
            }
        }
        best
    }

    /// Walks on until `until` and lowers `least` to the least that is free on the way; `false` when quota runs
    /// out for the request. Only nodes of `only` matter, when given.
    fn lower_until(
        &self,
        future: &mut State,
        least: &mut Space,
        next: usize,
        until: Time,
        request: &Request<'_>,
        only: Option<&BTreeSet<NodeId>>,
    ) -> bool {
        let walk = self.changes[next..].iter().take_while(|change| change.at < until);
        let last = walk.clone().filter(|change| change.kind == Kind::Begins).count();
        let mut begun = 0;
        for change in walk {
            if begun == last {
                break;
            }
            future.apply(change);
            if change.kind == Kind::Begins {
                begun += 1;
                if !future.tree.admits(request.queue, &request.form.charge) {
                    return false;
                }
                lower_touched(least, &future.space, &change.hold, only);
            }
        }
        true
    }

    fn begins_before(&self, until: Time) -> usize {
        self.begins.partition_point(|begin| *begin < until)
    }

    /// What is free throughout until after the first `begins` promises have begun.
    fn throughout(&self, begins: usize) -> Throughout {
        let mut future = self.state.clone();
        let mut within = Throughout { least: self.state.space.clone(), trees: Vec::with_capacity(begins) };
        for change in &self.changes {
            if within.trees.len() == begins {
                break;
            }
            future.apply(change);
            if change.kind == Kind::Begins {
                lower_touched(&mut within.least, &future.space, &change.hold, None);
                let root = future.tree.root(change.hold.queue);
                within.trees.push((change.at, root, future.tree.clone()));
            }
        }
        within
    }

    /// Nodes that are set aside for others at any moment from `from` to `until`.
    fn closed(&self, request: &Request<'_>, from: Time, until: Time) -> BTreeSet<NodeId> {
        let open =
            |closure: &&Closure| closure.from < until && closure.to > from && !closure.is_open_to(request);
        self.closures.iter().filter(open).flat_map(|closure| closure.nodes.iter().copied()).collect()
    }

    fn insert(&mut self, change: Change) {
        let index = self.changes.partition_point(|known| known.key() < change.key());
        self.changes.insert(index, change);
    }
}

fn find(idle: Option<&Idle>, space: &mut Space, request: &Request<'_>) -> Option<Slots> {
    match idle {
        Some(idle) => idle.find(space, request),
        None => space.find(&request.form.demand),
    }
}

impl Closure {
    fn is_open_to(&self, request: &Request<'_>) -> bool {
        self.admits.is_some() && self.admits.as_deref() == request.reservation
    }
}

fn lower_touched(least: &mut Space, at: &Space, hold: &Hold, only: Option<&BTreeSet<NodeId>>) {
    let mut last = None;
    for slot in &hold.slots.0 {
        if last != Some(slot.node) && only.is_none_or(|only| only.contains(&slot.node)) {
            least.lower(slot.node, at.room(slot.node));
        }
        last = Some(slot.node);
    }
}

fn close(space: &mut Space, nodes: &BTreeSet<NodeId>) {
    for node in nodes {
        space.lower(*node, &Room::default());
    }
}
