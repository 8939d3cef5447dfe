//! Pods that join a job that runs: successors of lost ones, and more of them. The line decides, as it does about
//! jobs: quota, room, and what is promised to others.

use std::sync::Arc;

use muster_scheduler_core::space::Space;

use crate::cycle::request;
use crate::explain::Reason;
use crate::job::{Form, Hold, JobId};
use crate::planner::{EventError, Planner, Start};
use crate::time::Time;

/// Why pods join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The job cannot go on without them. Room that is promised to others does not bind them: ask before
    /// [`Planner::cycle`].
    Repair,
    /// The job does better with them. They go behind everybody who waits: ask once the cycle's plan has been
    /// carried out.
    Growth,
}

/// Whether pods may join.
#[derive(Debug, Clone, PartialEq)]
pub enum Joining {
    /// They start now. The hold is that of the joining pods alone; tell [`Planner::rehold`] of the whole.
    Start(Start),
    /// They wait, for this reason.
    Wait(Reason),
}

impl Planner {
    /// Whether pods may join a job that runs, in the first of these forms that is possible: the form of all of them
    /// first, if fewer would do then of fewer. A form's charge is what they add to the job's. Nothing is taken.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when the job does not run; [`EventError::NoForm`] when there is no form.
    pub fn join(
        &self,
        job: JobId,
        forms: &[Form],
        purpose: Purpose,
        now: Time,
        space: &Space,
    ) -> Result<Joining, EventError> {
        let running = self.running.get(&job).ok_or(EventError::NotThere { job, expected: "running" })?;
        let last = forms.last().ok_or(EventError::NoForm(job))?;
        if running.leaving_for.is_some() {
            return Ok(Joining::Wait(Reason::Leaving));
        }
        let length = running.ends.since(now).max(1);
        let mut timeline = self.timeline(now, space);
        if purpose == Purpose::Growth {
            for promise in self.promises.values() {
                timeline.promise(promise.job, &promise.hold, promise.latest.max(now), promise.length);
            }
        }
        let found = forms.iter().enumerate().find_map(|(index, form)| {
            let slots = timeline.start_now(&request(&running.job, form, length))?;
            Some((index, Hold { queue: running.job.queue, form: form.clone(), slots }))
        });
        let Some((form, hold)) = found else {
            // Were nothing in its way, it would have been found.
            let reason = self.in_the_way(&request(&running.job, last, length), now, space, job);
            return Ok(Joining::Wait(reason.unwrap_or(Reason::SetAside)));
        };
        Ok(Joining::Start(Start { job, form, hold: Arc::new(hold), ends: running.ends }))
    }
}
