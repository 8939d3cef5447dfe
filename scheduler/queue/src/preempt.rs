//! Whom to evict so that a job can start: whole jobs, the least work lost, nobody in vain and nobody too many.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cycle::request;
use crate::job::{Hold, Job, JobId, Running};
use crate::planner::{Planner, Preempt};
use crate::policy::Preemption;
use crate::time::Time;
use crate::timeline::{Request, Timeline};
use crate::tree::Preempts;

/// Victims looked at in one search; beyond that the machine is better used otherwise.
const MOST_VICTIMS: usize = 512;

/// Victims, and the form that starts once they are gone.
pub(crate) struct Chosen {
    pub(crate) preempt: Preempt,
    pub(crate) form: usize,
}

/// The cheapest set found of jobs whose eviction lets `job` start now; `None` when there is none.
///
/// Every set is proved on a copy of the future before it counts, in which everything promised to others stays.
pub(crate) fn choose(
    planner: &Planner,
    timeline: &Timeline,
    job: &Job,
    rules: &Preemption,
    gone: &BTreeSet<JobId>,
) -> Option<Chosen> {
    let now = timeline.now();
    let mut best: Option<Chosen> = None;
    for (index, form) in job.forms.iter().enumerate() {
        let length = planner.backlog.get(job.id)?.estimate.length;
        let search = Search { planner, timeline, job, request: request(job, form, length), rules, gone };
        if search.candidates().next().is_none() {
            continue;
        }
        for order in [Search::by_loss, Search::by_loss_per_gpu, Search::by_node] {
            let Some((victims, hold)) = search.greedy(order(&search, now)) else { continue };
            let loss = search.loss(&victims, now);
            if best
                .as_ref()
                .is_none_or(|best| (loss, victims.len()) < (best.preempt.loss, best.preempt.victims.len()))
            {
                let hold = Arc::new(hold);
                best = Some(Chosen { preempt: Preempt { job: job.id, victims, hold, loss }, form: index });
            }
        }
        if best.is_some() {
            return best;
        }
    }
    None
}

struct Search<'a> {
    planner: &'a Planner,
    timeline: &'a Timeline,
    job: &'a Job,
    request: Request<'a>,
    rules: &'a Preemption,
    /// Evicted in this cycle already.
    gone: &'a BTreeSet<JobId>,
}

impl Search<'_> {
    fn loss(&self, victims: &[JobId], now: Time) -> i64 {
        victims.iter().filter_map(|id| self.planner.running.get(id)).map(|running| running.loss(now)).sum()
    }

    /// Jobs that may be evicted for this one, were quota as it is in `timeline`.
    fn may_evict(&self, running: &Running, timeline: &Timeline) -> bool {
        let evicted = self.planner.evictions.get(&running.job.id).copied().unwrap_or(0);
        if running.job.restart.never
            || running.leaving_for.is_some()
            || self.gone.contains(&running.job.id)
            || timeline.now().since(running.since) < self.rules.min_runtime
            || evicted >= self.rules.most_evictions
        {
            return false;
        }
        let spec = self.planner.tree.spec(self.job.queue);
        let lower = running.job.priority < self.job.priority;
        if running.job.queue == self.job.queue {
            // Within a queue equal priority never evicts: the two would take turns.
            return lower && spec.within_queue != Preempts::Never;
        }
        let charge = &self.request.form.charge;
        if charge.is_empty() && running.hold.form.charge.is_empty() {
            return lower && spec.within_queue != Preempts::Never;
        }
        let allowed = match spec.reclaim {
            Preempts::Never => false,
            Preempts::LowerPriority => lower,
            Preempts::Any => true,
        };
        allowed && timeline.tree().may_reclaim(self.job.queue, charge, running.job.queue)
    }

    fn candidates(&self) -> impl Iterator<Item = &Running> {
        self.planner.running.values().filter(|running| self.may_evict(running, self.timeline))
    }

    fn by_loss(&self, now: Time) -> Vec<JobId> {
        let mut order: Vec<_> =
            self.candidates().map(|running| (running.loss(now), running.job.id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    fn by_loss_per_gpu(&self, now: Time) -> Vec<JobId> {
        let size =
            |running: &Running| running.hold.form.gpus().max(i64::from(running.hold.form.pods())).max(1);
        let mut order: Vec<_> = self
            .candidates()
            .map(|running| {
                (running.loss(now) / size(running), std::cmp::Reverse(size(running)), running.job.id)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Node after node, the cheapest to empty first.
    fn by_node(&self, now: Time) -> Vec<JobId> {
        let mut nodes: std::collections::BTreeMap<_, BTreeSet<(i64, JobId)>> =
            std::collections::BTreeMap::new();
        for running in self.candidates() {
            for slot in &running.hold.slots.0 {
                nodes.entry(slot.node).or_default().insert((running.loss(now), running.job.id));
            }
        }
        let mut order: Vec<_> = nodes
            .into_iter()
            .map(|(node, jobs)| (jobs.iter().map(|(loss, _)| *loss).sum::<i64>(), node, jobs))
            .collect();
        order.sort();
        let mut seen = BTreeSet::new();
        let jobs = order.into_iter().flat_map(|(_, _, jobs)| jobs.into_iter().map(|(_, id)| id));
        jobs.filter(|id| seen.insert(*id)).collect()
    }

    /// Evicts in order until the job fits, then lets everybody stay who need not go, the most costly first.
    fn greedy(&self, order: Vec<JobId>) -> Option<(Vec<JobId>, Hold)> {
        let mut timeline = self.timeline.clone();
        let mut victims = Vec::new();
        let mut slots = None;
        for id in order.into_iter().take(MOST_VICTIMS) {
            let Some(running) = self.planner.running.get(&id) else { continue };
            if !self.may_evict(running, &timeline) {
                continue;
            }
            timeline.evict(id);
            victims.push(id);
            slots = timeline.start_now(&self.request);
            if slots.is_some() {
                break;
            }
        }
        let mut slots = slots?;
        let mut costly = victims.clone();
        costly.sort_by_key(|id| {
            std::cmp::Reverse(
                self.planner.running.get(id).map_or(0, |running| running.loss(self.timeline.now())),
            )
        });
        for spared in costly {
            if victims.len() == 1 {
                break;
            }
            let fewer: Vec<JobId> = victims.iter().copied().filter(|id| *id != spared).collect();
            if let Some(found) = self.fits_without(&fewer) {
                (victims, slots) = (fewer, found);
            }
        }
        let hold = Hold { queue: self.job.queue, form: self.request.form.clone(), slots };
        Some((victims, hold))
    }

    fn fits_without(&self, victims: &[JobId]) -> Option<muster_scheduler_core::search::Slots> {
        let mut timeline = self.timeline.clone();
        for id in victims {
            if !self.may_evict(self.planner.running.get(id)?, &timeline) {
                return None;
            }
            timeline.evict(*id);
        }
        timeline.start_now(&self.request)
    }
}
