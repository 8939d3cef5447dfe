//! The state machine behind a lock that is held for microseconds, and the tasks that carry its effects out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::{Api, Content};
use crate::core::{Effect, ExtenderCore, Time, Timing};
use crate::plans::Plans;

/// How long requests to the API server may take once the server ends.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct Shared<P: Plans> {
    term: Mutex<Term<P>>,
    timing: Timing,
    /// Somebody who waits may want to look again.
    pub(super) changed: Notify,
    pub(super) content: Arc<dyn Content>,
    tasks: TaskTracker,
    started: Instant,
    epoch: i64,
}

/// The time from one start from nothing to the next.
struct Term<P: Plans> {
    /// Counts the terms: what comes back from an earlier one is of no use to this one.
    number: u64,
    core: ExtenderCore<P>,
    api: Arc<dyn Api>,
}

impl<P: Plans> Shared<P> {
    pub(super) fn new(plans: P, timing: Timing, api: Arc<dyn Api>, content: Arc<dyn Content>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            term: Mutex::new(Term { number: 0, core: ExtenderCore::new(plans, timing), api }),
            timing,
            changed: Notify::new(),
            content,
            tasks: TaskTracker::new(),
            started: Instant::now(),
            epoch: since_1970.as_millis() as i64,
        }
    }

    /// Never goes back, whatever is done to the clock of the machine.
    pub(super) fn now(&self) -> Time {
        Time(self.epoch + self.started.elapsed().as_millis() as i64)
    }

    /// Forgets everything; effects that are under way are not heard of any more.
    pub(super) fn restart(&self, plans: P, api: Arc<dyn Api>) {
        let core = ExtenderCore::new(plans, self.timing);
        let before = {
            let mut term = self.term.lock();
            let number = term.number + 1;
            std::mem::replace(&mut *term, Term { number, core, api })
        };
        // A large ledger is taken apart outside the lock.
        drop(before);
        self.changed.notify_waiters();
    }

    /// Changes or asks the state machine, then has its effects carried out.
    pub(super) fn apply<T>(self: &Arc<Self>, change: impl FnOnce(&mut ExtenderCore<P>, Time) -> T) -> T {
        let (result, effects, number, api) = {
            let mut term = self.term.lock();
            let result = change(&mut term.core, self.now());
            (result, term.core.effects(), term.number, term.api.clone())
        };
        for effect in effects {
            self.carry_out(effect, number, &api);
        }
        result
    }

    /// The same, and whoever waits looks again.
    pub(super) fn tell<T>(self: &Arc<Self>, change: impl FnOnce(&mut ExtenderCore<P>, Time) -> T) -> T {
        let result = self.apply(change);
        self.changed.notify_waiters();
        result
    }

    /// Tells what became of an effect of this term.
    fn report(self: &Arc<Self>, number: u64, change: impl FnOnce(&mut ExtenderCore<P>, Time)) {
        let (effects, api) = {
            let mut term = self.term.lock();
            if term.number != number {
                return;
            }
            change(&mut term.core, self.now());
            (term.core.effects(), term.api.clone())
        };
        for effect in effects {
            self.carry_out(effect, number, &api);
        }
        self.changed.notify_waiters();
    }

    fn carry_out(self: &Arc<Self>, effect: Effect<P::Snapshot>, term: u64, api: &Arc<dyn Api>) {
        let (shared, api) = (self.clone(), api.clone());
        match effect {
            Effect::Plan(job) => {
                self.tasks.spawn_blocking(move || {
                    let planned = job.run();
                    shared.report(term, |core, now| core.planned(now, planned));
                });
            }
            Effect::Write(write) => {
                self.tasks.spawn(async move {
                    let outcome = api.write(write.clone()).await;
                    shared.report(term, |core, now| core.written(now, &write, outcome));
                });
            }
            Effect::Bind(bind) => {
                self.tasks.spawn(async move {
                    let outcome = api.bind(bind.clone()).await;
                    shared.report(term, |core, now| core.bound(now, &bind, outcome));
                });
            }
            Effect::Look(bind) => {
                self.tasks.spawn(async move {
                    let outcome = api.look(bind.clone()).await;
                    shared.report(term, |core, now| core.bound(now, &bind, outcome));
                });
            }
            Effect::MarkBound { gang, epoch } => {
                self.tasks.spawn(async move { api.mark_bound(gang, epoch).await });
            }
            Effect::Remove { gang, resource_version } => {
                self.tasks.spawn(async move { api.remove(gang, resource_version).await });
            }
        }
    }

    /// Lets requests under way end.
    pub(super) async fn end(&self) {
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::debug!("requests to the api server were still open when the extender ended");
        }
    }
}
