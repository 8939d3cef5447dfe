//! Other queues: jobs keep theirs by name, and what they use of it is counted anew.

use std::sync::Arc;

use crate::job::{Form, Gate, Hold, Job, JobId};
use crate::planner::{EventError, Planner};
use crate::time::Time;
use crate::tree::{QueueId, QueueTree};

impl Planner {
    /// Replaces the queues. Jobs keep their queues by name, their places and what is promised to them; charges are
    /// made anew where other resources have quota now, and usage keeps its history. Those whose queue is gone move
    /// to `refuge`; of them, those that wait are held back until they are [amended](Self::amend), and are told of.
    ///
    /// # Errors
    /// [`EventError::UnknownQueue`] when a job needs the refuge and there is none; nothing changes then.
    pub fn set_tree(&mut self, tree: QueueTree, refuge: &str, now: Time) -> Result<Vec<JobId>, EventError> {
        let moves = Move { from: self.tree.clone(), to: tree.emptied(), refuge: tree.queue(refuge) };
        let jobs = self.backlog.iter().map(|waiter| &waiter.job);
        for job in jobs.chain(self.running.values().map(|running| &running.job)) {
            moves.queue(job.queue).ok_or(EventError::UnknownQueue(job.id))?;
        }
        let mut homeless = Vec::new();
        self.backlog.change_all(|job| {
            if moves.is_homeless(job.queue) {
                homeless.push(job.id);
                job.gate = Gate::Closed(format!("queue {} does not exist", moves.from.name(job.queue)));
            }
            moves.job(job);
        });
        for running in self.running.values_mut() {
            moves.job(Arc::make_mut(&mut running.job));
            moves.hold(&mut running.hold);
        }
        for promise in self.promises.values_mut() {
            moves.hold(&mut promise.hold);
        }
        self.promises.retain(|job, _| !homeless.contains(job));
        self.fair = self.fair.carried_over(&self.tree, &moves.to, now);
        self.tree = moves.to;
        for running in self.running.values() {
            let charge = &running.hold.form.charge;
            self.tree.add(running.job.queue, charge);
            self.fair.change(&self.tree, running.job.queue, charge, 1.0, now);
        }
        self.nodes_changed();
        Ok(homeless)
    }
}

/// From old queues to new ones.
struct Move {
    from: QueueTree,
    to: QueueTree,
    refuge: Option<QueueId>,
}

impl Move {
    fn is_homeless(&self, queue: QueueId) -> bool {
        self.to.queue(self.from.name(queue)).is_none()
    }

    fn queue(&self, queue: QueueId) -> Option<QueueId> {
        self.to.queue(self.from.name(queue)).or(self.refuge)
    }

    fn form(&self, form: &Form) -> Form {
        Form { charge: self.to.recharge(&form.charge), ..form.clone() }
    }

    fn job(&self, job: &mut Job) {
        job.queue = self.queue(job.queue).unwrap_or(job.queue);
        job.forms = job.forms.iter().map(|form| self.form(form)).collect();
    }

    fn hold(&self, hold: &mut Arc<Hold>) {
        let queue = self.queue(hold.queue).unwrap_or(hold.queue);
        *hold = Arc::new(Hold { queue, form: self.form(&hold.form), slots: hold.slots.clone() });
    }
}
