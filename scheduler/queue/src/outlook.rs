//! What is to be said of all who wait at one moment, worked out once and as far as it is asked for.

use std::collections::BTreeMap;

use muster_scheduler_core::space::Space;

use crate::explain::{Explanation, InLine, Settled};
use crate::forecast::{Expected, Forecast};
use crate::job::JobId;
use crate::planner::{EventError, Planner};
use crate::time::Time;

/// A planner and the free room as they were at one moment, for asking about many jobs: when they are expected to
/// start is one walk into the future for all of them, and only as far as the last that was asked about. It shares
/// nothing that changes with the planner it was taken from, so another thread may ask while that one plans on.
#[derive(Debug, Clone)]
pub struct Outlook {
    planner: Planner,
    space: Space,
    now: Time,
    order: Vec<JobId>,
    /// From 1.
    places: BTreeMap<JobId, usize>,
    settled: Settled,
    forecast: Forecast,
}

impl Planner {
    /// What is to be said of all who wait, from this moment on.
    pub fn outlook(&self, now: Time, space: &Space) -> Outlook {
        let order = self.order(now, space);
        Outlook {
            places: order.iter().enumerate().map(|(index, job)| (*job, index + 1)).collect(),
            order,
            settled: Settled::new(self, now, space),
            forecast: Forecast::new(self, now, space),
            planner: self.clone(),
            space: space.clone(),
            now,
        }
    }

    /// All that is to be said of a waiting job. Who asks about several asks an [`Outlook`].
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not wait.
    pub fn explain(&self, job: JobId, now: Time, space: &Space) -> Result<Explanation, EventError> {
        self.outlook(now, space).explain(job)
    }

    /// All who wait, in their order, each with its reason and expected start.
    pub fn line(&self, now: Time, space: &Space) -> Vec<InLine> {
        self.outlook(now, space).line()
    }
}

impl Outlook {
    /// The planner as it was, which names what is [told](crate::explain::Told).
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// Jobs that wait, in their order.
    pub fn order(&self) -> &[JobId] {
        &self.order
    }

    /// When a waiting job is expected to start; `None` when nothing known lets it.
    pub fn expected(&mut self, job: JobId) -> Option<Expected> {
        self.forecast.expected(job)
    }

    /// A job's line of the list of those who wait: quick, as nothing is tried out.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not wait.
    pub fn in_line(&mut self, job: JobId) -> Result<InLine, EventError> {
        let waits = self.planner.backlog.get(job).zip(self.places.get(&job));
        let (waiter, place) = waits.ok_or(EventError::NotThere { job, expected: "waiting" })?;
        let reason = self.settled.reason(&waiter.job, &self.order);
        Ok(InLine { job, place: *place, reason, expected: self.forecast.expected(job) })
    }

    /// All who wait, in their order, each with its reason and expected start.
    pub fn line(&mut self) -> Vec<InLine> {
        let order = self.order.clone();
        order.into_iter().filter_map(|job| self.in_line(job).ok()).collect()
    }

    /// All that is to be said of a waiting job. Every counterfactual is proved by planning again.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not wait.
    pub fn explain(&mut self, job: JobId) -> Result<Explanation, EventError> {
        let InLine { place, reason, expected, .. } = self.in_line(job)?;
        let what_if = self.planner.what_if(job, &reason, expected.as_ref(), self.now, &self.space);
        Ok(Explanation { job, reason, place, expected, what_if })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_may_ask() {
        fn sent<T: Send + 'static>() {}
        sent::<Outlook>();
    }
}
