//! How gangs come into the line and leave it.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_scheduler_core::claims::GrantedDevice;
use muster_scheduler_core::{
    ClaimKey, Closeness, Gang, GangDemand, Grant, Group, PodKey, Resources, Slot, Slots,
};
use muster_scheduler_queue::job::{Form, Gate, Hold, Job, JobId, Restart};
use muster_scheduler_queue::time::{Milliseconds, Time};
use muster_scheduler_queue::tree::{Charge, FlavorResource, QueueId};

use super::decision::Opening;
use super::pods::{GangKey, State};
use super::{GangState, Planner, Stage};
use crate::objects::PodClaim;

/// Sizes of an elastic gang that are tried.
const SIZES: usize = 8;
/// A gang that was evicted and has not come back after this long has lost its place in line.
const KEPT_PLACE: Milliseconds = 3_600_000;

/// What a gang stands in line with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) gang: Gang,
    /// Pods of each form of the job.
    pub(super) sizes: Vec<usize>,
    priority: i32,
    queue: String,
    /// Quality of service of the queue.
    quality: i32,
    /// Whether there is such a queue.
    queue_exists: bool,
    /// Whether the gang's plan before this is still being carried out.
    under_way: bool,
    /// Why it is not tried now, after it was refused.
    refused: Option<String>,
    /// The controller that the pods are from.
    owner: Option<String>,
    user: String,
    limit: Option<Milliseconds>,
    reservation: Option<String>,
    restart: Restart,
    /// How long it waits for nearer places at the most.
    nearness: Option<Milliseconds>,
    created: i64,
    /// What keeps it back whatever is free.
    pub(super) held: Option<Held>,
}

/// What keeps a gang back whatever is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// Something is asked for that cannot be had as it is written.
    Problem(String),
    /// The object that describes the gang is not there, or not yet.
    Missing(String),
}

impl Held {
    pub(crate) fn sentence(&self) -> &str {
        match self {
            Self::Problem(sentence) | Self::Missing(sentence) => sentence,
        }
    }
}

impl Asked {
    /// Whether all pods that must start together exist.
    pub(super) fn is_complete(&self) -> bool {
        self.gang.present() >= self.gang.min_available
    }

    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    fn submitted(&self) -> Time {
        Time(self.created.saturating_mul(1000))
    }

    /// Whether these are pods of another owner, whose gang happens to be called the same.
    fn is_a_stranger_to(&self, before: &Self) -> bool {
        self.owner.is_some() && before.owner.is_some() && self.owner != before.owner
    }
}

impl Planner {
    fn asked(&self, key: &GangKey, gang: Gang) -> Option<Asked> {
        let created = self.pods.of(key).map(|(_, pod)| pod.created).min()?;
        let group = self.pods.described(key).and_then(Result::ok).map(|(group, _)| group);
        let highest = self.pods.of(key).map(|(_, pod)| pod.priority).max()?;
        let priority = group.and_then(|group| group.priority).unwrap_or(highest);
        let limit = self.pods.of(key).filter_map(|(_, pod)| pod.limit).max();
        let nearness = self.pods.of(key).filter_map(|(_, pod)| pod.nearness).max();
        let (_, first) = self.pods.of(key).next()?;
        let sizes = whole_copies(&gang, sizes(gang.waiting.len(), gang.min_available));
        let queue = first.queue.clone().or_else(|| group?.queue.clone());
        let queue = queue.unwrap_or_else(|| muster_scheduler_api::DEFAULT_QUEUE.to_owned());
        let (user, reservation, restart) = (first.user.clone(), first.reservation.clone(), first.restart);
        let owner = first.owner.as_ref().map(|owner| owner.uid.clone());
        let quality = self.queues.quality(&queue);
        let queue_exists = self.line.tree().queue(&queue).is_some();
        let under_way = self.under_way.contains(key);
        let refused = self.pauses_because(key);
        let held = self.held(key);
        Some(Asked {
            gang,
            sizes,
            priority,
            queue,
            quality,
            queue_exists,
            under_way,
            refused,
            owner,
            user,
            limit,
            reservation,
            restart,
            nearness,
            created,
            held,
        })
    }

    /// What keeps the gang's waiting pods back whatever is free.
    pub(super) fn held(&self, key: &GangKey) -> Option<Held> {
        let mut waiting = self.pods.of(key).filter(|(_, view)| view.state == State::Waiting);
        let problem = waiting.find_map(|(pod, view)| {
            if let Some(problem) = view.problems.first() {
                return Some(Held::Problem(format!("pod {}: {problem}", pod.name)));
            }
            if !view.claims.is_empty() && view.gate == Some(Opening::Only) {
                return Some(Held::Problem(format!(
                    "pod {}: Muster chooses no devices for pods that another scheduler binds; let it be bound by \
                     Muster (spec.schedulerName), or remove the gate or spec.resourceClaims",
                    pod.name
                )));
            }
            if let Some(held) = view.claims_hold() {
                return Some(match held {
                    Held::Problem(why) => Held::Problem(format!("pod {}: {why}", pod.name)),
                    Held::Missing(why) => Held::Missing(format!("pod {}: {why}", pod.name)),
                });
            }
            // Its own scheduler could refuse the one node that it is let go to.
            let field = view.unheeded.first().filter(|_| view.gate == Some(Opening::Only))?;
            Some(Held::Problem(format!(
                "pod {}: Muster does not look at {field}, which may forbid the node that it is let go to; remove it, \
                 or the gate",
                pod.name
            )))
        });
        problem.or_else(|| self.pods.described(key)?.err())
    }

    fn next_job(&mut self) -> JobId {
        self.last_job += 1;
        JobId(self.last_job)
    }

    /// What pods with these requests use of the queues' quota.
    fn charge(&self, together: &Resources) -> Charge {
        let amounts: Vec<(FlavorResource, i64)> =
            together.iter().map(|(name, amount)| (FlavorResource::new("", name), amount)).collect();
        self.line.tree().charge(amounts.iter().map(|(resource, amount)| (resource, *amount)))
    }

    /// What keeps a gang back.
    fn gate(&self, asked: &Asked) -> Gate {
        if let Some(held) = &asked.held {
            return Gate::Closed(held.sentence().to_owned());
        }
        if !asked.is_complete() {
            let (present, needed) = (asked.gang.present() as u32, asked.gang.min_available as u32);
            return Gate::Members { present, needed };
        }
        if asked.under_way {
            return Gate::Closed("its plan before this is still being carried out".to_owned());
        }
        if let Some(refused) = &asked.refused {
            return Gate::Closed(refused.clone());
        }
        if !asked.queue_exists {
            return Gate::Closed(self.queues.what_is_wrong_with(&asked.queue));
        }
        Gate::Open
    }

    /// The forms of a gang's first waiting pods, so many each, and what keeps them back.
    pub(super) fn forms(&mut self, gang: &Gang, sizes: &[usize]) -> (Vec<Form>, Gate) {
        let mut gate = Gate::Open;
        let mut forms = Vec::new();
        for size in sizes {
            let demand = GangDemand::new(self.ledger.space(), gang, *size).unwrap_or_else(|reason| {
                gate = Gate::Closed(reason.to_string());
                let anywhere = Gang { closeness: Closeness::default(), shape: None, ..gang.clone() };
                GangDemand::new(self.ledger.space(), &anywhere, *size).unwrap_or_default()
            });
            let mut together = Resources::new();
            gang.waiting[..*size].iter().for_each(|member| together.add(&member.requests));
            if demand.demand.spares
                && let Some(largest) = gang.largest()
            {
                (0..gang.spares).for_each(|_| together.add(&largest.requests));
            }
            let charge = self.charge(&together);
            forms.push(Form { label: format!("{size} pods"), demand: demand.demand, charge });
        }
        (forms, gate)
    }

    /// The gang as a job of the line, open and at the place of its oldest pod.
    fn job(&self, id: JobId, key: &GangKey, asked: &Asked, forms: Vec<Form>) -> Job {
        Job {
            id,
            name: key.name.clone(),
            user: asked.user.clone(),
            queue: self.line.tree().queue(&asked.queue).unwrap_or_else(|| self.default_queue()),
            submitted: asked.submitted(),
            priority: i64::from(asked.priority),
            quality: asked.quality,
            limit: asked.limit,
            forms: forms.into(),
            gate: Gate::Open,
            restart: asked.restart,
            reservation: asked.reservation.clone(),
            nearness: asked.nearness,
        }
    }

    fn default_queue(&self) -> QueueId {
        let tree = self.line.tree();
        tree.queue(muster_scheduler_api::DEFAULT_QUEUE).unwrap_or_else(|| tree.top()[0])
    }

    /// Puts a gang into the line, or says what it asks for now. Whoever is there keeps the place.
    pub(super) fn stand_in_line(&mut self, key: &GangKey, time: Time) {
        let gang = self.pods.gang(key);
        let Some(asked) = self.asked(key, gang) else { return };
        match self.gangs.get(key).map(|state| &state.asked) {
            Some(before) if *before == asked => return,
            Some(before) if asked.is_a_stranger_to(before) => self.withdraw(key),
            _ => {}
        }
        self.expected_back.remove(key);
        let (forms, unreadable) = self.forms(&asked.gang, &asked.sizes);
        let known = self.gangs.get(key).map(|state| (state.job, state.stage));
        let id = known.map_or_else(|| self.next_job(), |(job, _)| job);
        let mut job = self.job(id, key, &asked, forms);
        job.gate = match self.gate(&asked) {
            Gate::Open => unreadable,
            closed => closed,
        };
        let taken = if known.is_some() { self.line.amend(job) } else { self.line.submit(job) };
        match taken {
            Ok(()) => {
                self.note(
                    key,
                    id,
                    asked,
                    known.map_or(Stage::Waiting, |(_, stage)| stage),
                    Charge::default(),
                );
            }
            Err(error) => tracing::error!(%error, gang = %key, %time, "cannot stand in line"),
        }
    }

    /// A gang that has places already, from an earlier run of the scheduler.
    pub(super) fn adopt(&mut self, key: &GangKey, time: Time) {
        self.withdraw(key);
        let gang = self.pods.gang(key);
        let Some(asked) = self.asked(key, gang) else { return };
        let (form, slots) = self.holding(key);
        if slots.0.is_empty() {
            // Its nodes are not known: there is no room to give back.
            return;
        }
        let id = self.next_job();
        let job = self.job(id, key, &asked, vec![form.clone()]);
        let (queue, since, charge) = (job.queue, job.submitted, form.charge.clone());
        match self.line.adopt(job, Hold { queue, form, slots }, since, time) {
            Ok(()) => {
                self.listen_to(key);
                if self.living(key) >= asked.gang.min_available {
                    self.begun.insert(key.clone());
                }
                self.note(key, id, asked, Stage::Running, charge);
            }
            Err(error) => tracing::error!(%error, gang = %key, "cannot adopt a gang that runs"),
        }
    }

    /// What the pods of a gang have together.
    fn holding(&mut self, key: &GangKey) -> (Form, Slots) {
        let mut form = Form { label: "as it runs".to_owned(), ..Form::default() };
        let mut slots = Slots::default();
        let mut together = Resources::new();
        let mut counted: BTreeSet<ClaimKey> = BTreeSet::new();
        let pods = self.pods.of(key).filter(|(_, pod)| pod.state != State::Waiting).map(|(pod, _)| pod);
        let spares = self.ledger.spares(&key.namespace, &key.name).map(|(spare, _)| spare);
        for pod in pods.chain(spares) {
            let Some((node, shape, devices)) = self.ledger.holding(pod) else { continue };
            let groups = &mut form.demand.groups;
            let known = groups.iter().position(|group| Arc::ptr_eq(&group.shape, shape));
            let group = known.unwrap_or_else(|| {
                groups.push(Group { shape: Arc::clone(shape), count: 0 });
                groups.len() - 1
            });
            groups[group].count += 1;
            let granted = self.claimed_by(key, pod, &mut counted);
            slots.0.push(Slot { group, node, devices: devices.clone(), granted });
            if let Some(assignment) = self.ledger.assignment(pod) {
                together.add(&assignment.resources);
            }
        }
        form.charge = self.charge(&together);
        (form, slots)
    }

    /// The devices that come free when a pod of the gang ends with all others, of claims that are not `counted` yet.
    fn claimed_by(
        &self,
        gang: &GangKey,
        pod: &PodKey,
        counted: &mut BTreeSet<ClaimKey>,
    ) -> Option<Arc<Grant>> {
        let mut grant = Grant::default();
        for name in self.pods.get(pod)?.claims.iter().filter_map(PodClaim::object) {
            let claim = ClaimKey::new(&pod.namespace, name);
            let devices = self.devices_of_gang(&claim, gang).iter().map(|device| GrantedDevice {
                request: "".into(),
                device: *device,
                admin: false,
            });
            let devices: Vec<GrantedDevice> = devices.collect();
            if !devices.is_empty() && counted.insert(claim) {
                grant.claims.push(devices);
            }
        }
        (!grant.claims.is_empty()).then(|| Arc::new(grant))
    }

    /// Tells the line what a gang that runs has now, where that has changed. The quota of pods that it cannot do
    /// without, and that are to come back, stays its own.
    pub(super) fn rehold(&mut self, key: &GangKey, time: Time) {
        let Some(state) = self.gangs.get(key) else { return };
        let (job, least, kept) = (state.job, self.pods.least(key), self.kept(state));
        let (mut form, slots) = self.holding(key);
        if self.living(key) >= least {
            self.begun.insert(key.clone());
        } else if self.begun.contains(key) {
            form.charge = kept;
        }
        if let Some(state) = self.gangs.get_mut(key) {
            state.charge.clone_from(&form.charge);
        }
        if let Err(error) = self.line.rehold(job, form, slots, time) {
            tracing::error!(%error, gang = %key, "the line does not know the gang that runs");
        }
        self.listen_to(key);
    }

    /// What the line counts as used by the gang, by the queues of now.
    fn kept(&self, state: &GangState) -> Charge {
        self.line.tree().recharge(&state.charge)
    }

    /// Pods of the gang that it counts on, on nodes that are there.
    fn living(&self, key: &GangKey) -> usize {
        let placed = self.pods.of(key).filter(|(_, pod)| pod.state.has_place());
        placed.filter(|(pod, _)| self.ledger.holding(pod).is_some()).count()
    }

    /// Takes from the forms' charges what the line still counts as used by lost pods of the gang.
    pub(super) fn charge_no_kept_quota(&mut self, key: &GangKey, forms: &mut [Form]) {
        let (has, _) = self.holding(key);
        let Some(kept) = self.gangs.get(key).map(|state| self.kept(state)) else { return };
        for form in forms {
            form.charge = self.line.tree().beyond(&kept, [&has.charge, &form.charge]);
        }
    }

    /// Takes a gang out of the line.
    pub(super) fn withdraw(&mut self, key: &GangKey) {
        self.expected_back.remove(key);
        self.ledger.is_silent(&key.into());
        let Some(state) = self.gangs.remove(key) else { return };
        self.jobs.remove(&state.job);
        if let Err(error) = self.line.withdraw(state.job) {
            tracing::error!(%error, gang = %key, "the line does not know the gang that leaves it");
        }
    }

    /// A gang that was started has no room any more.
    pub(super) fn comes_to_an_end(&mut self, key: &GangKey, time: Time) {
        let Some(state) = self.gangs.get_mut(key) else { return };
        let left = match state.stage {
            Stage::Waiting | Stage::Returning { .. } => return,
            Stage::Running => {
                let job = state.job;
                self.gangs.remove(key);
                self.jobs.remove(&job);
                self.line.ended(job, time)
            }
            Stage::Starting | Stage::Broken => {
                state.stage = Stage::Returning { since: time };
                self.line.put_back(state.job, time)
            }
            Stage::Evicting => {
                state.stage = Stage::Returning { since: time };
                self.line.evicted(state.job, time)
            }
        };
        if let Err(error) = left {
            tracing::error!(%error, gang = %key, "the line does not know the gang that ends");
        }
        self.ledger.release_spares(&key.namespace, &key.name);
        self.ledger.is_silent(&key.into());
        self.hold_place(key);
        if self.pods.census(key).waiting > 0 {
            self.stand_in_line(key, time);
        }
    }

    /// Keeps the place in line of a gang that returns, until its pods are there again.
    pub(super) fn hold_place(&mut self, key: &GangKey) {
        let Some(state) = self.gangs.get_mut(key) else { return };
        // Its pods are asked again.
        state.asked.gang.waiting.clear();
        state.asked.gang.placed_on.clear();
        let needed = state.asked.gang.min_available as u32;
        if let Err(error) = self.line.set_gate(state.job, Gate::Members { present: 0, needed }) {
            tracing::error!(%error, gang = %key, "the line does not know the gang that returns");
        }
        self.expected_back.insert(key.clone());
    }

    /// Gangs that were evicted and whose owner does not bring them back lose their places in line.
    pub(super) fn forget_those_who_stay_away(&mut self, time: Time) {
        let late = |key: &&GangKey| {
            let stage = self.gangs.get(*key).map(|state| state.stage);
            matches!(stage, Some(Stage::Returning { since }) if time.since(since) >= KEPT_PLACE)
        };
        for key in self.expected_back.iter().filter(late).cloned().collect::<Vec<_>>() {
            self.withdraw(&key);
        }
    }

    pub(super) fn set_stage(&mut self, key: &GangKey, stage: Stage) {
        if let Some(state) = self.gangs.get_mut(key) {
            state.stage = stage;
        }
    }

    fn note(&mut self, key: &GangKey, job: JobId, asked: Asked, stage: Stage, charge: Charge) {
        self.gangs.insert(key.clone(), GangState { job, stage, asked, charge, explained: None });
        self.jobs.insert(job, key.clone());
    }
}

/// The sizes of which its groups of ranks are a whole number; all of the gang, when there is none.
fn whole_copies(gang: &Gang, mut sizes: Vec<usize>) -> Vec<usize> {
    if gang.shape.is_none() {
        return sizes;
    }
    let (all, least) = (gang.waiting.len(), sizes.last().copied().unwrap_or(0));
    sizes.retain(|size| gang.groups_of(*size).is_ok());
    if sizes.is_empty() {
        // None of those that were to be tried; perhaps others.
        sizes = (least..=all).rev().filter(|size| gang.groups_of(*size).is_ok()).take(SIZES).collect();
    }
    if sizes.is_empty() { vec![all] } else { sizes }
}

/// Sizes of a gang that are tried: all of its pods, then fewer, and no fewer than it needs.
pub(super) fn sizes(all: usize, least: usize) -> Vec<usize> {
    let least = least.clamp(1, all.max(1)).min(all);
    let mut sizes: Vec<usize> = (0..SIZES).map(|step| all - (all - least) * step / (SIZES - 1)).collect();
    sizes.dedup();
    sizes
}
