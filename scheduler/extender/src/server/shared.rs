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
    core: Mutex<ExtenderCore<P>>,
    /// Somebody who waits may want to look again.
    pub(super) changed: Notify,
    pub(super) api: Arc<dyn Api>,
    pub(super) content: Arc<dyn Content>,
    tasks: TaskTracker,
    started: Instant,
    epoch: i64,
}

impl<P: Plans> Shared<P> {
    pub(super) fn new(plans: P, timing: Timing, api: Arc<dyn Api>, content: Arc<dyn Content>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            core: Mutex::new(ExtenderCore::new(plans, timing)),
            changed: Notify::new(),
            api,
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

    /// Changes or asks the state machine, then has its effects carried out.
    pub(super) fn apply<T>(self: &Arc<Self>, change: impl FnOnce(&mut ExtenderCore<P>, Time) -> T) -> T {
        let (result, effects) = {
            let mut core = self.core.lock();
            let result = change(&mut core, self.now());
            (result, core.effects())
        };
        for effect in effects {
            self.carry_out(effect);
        }
        result
    }

    /// The same, and whoever waits looks again.
    pub(super) fn tell<T>(self: &Arc<Self>, change: impl FnOnce(&mut ExtenderCore<P>, Time) -> T) -> T {
        let result = self.apply(change);
        self.changed.notify_waiters();
        result
    }

    fn carry_out(self: &Arc<Self>, effect: Effect<P::Snapshot>) {
        let shared = self.clone();
        match effect {
            Effect::Plan(job) => {
                self.tasks.spawn_blocking(move || {
                    let planned = job.run();
                    shared.tell(|core, now| core.planned(now, planned));
                });
            }
            Effect::Write(write) => {
                self.tasks.spawn(async move {
                    let outcome = shared.api.write(write.clone()).await;
                    shared.tell(|core, now| core.written(now, &write, outcome));
                });
            }
            Effect::Bind(bind) => {
                self.tasks.spawn(async move {
                    let outcome = shared.api.bind(bind.clone()).await;
                    shared.tell(|core, now| core.bound(now, &bind, outcome));
                });
            }
            Effect::Look(bind) => {
                self.tasks.spawn(async move {
                    let outcome = shared.api.look(bind.clone()).await;
                    shared.tell(|core, now| core.bound(now, &bind, outcome));
                });
            }
            Effect::MarkBound { gang, epoch } => {
                self.tasks.spawn(async move { shared.api.mark_bound(gang, epoch).await });
            }
            Effect::Remove { gang, resource_version } => {
                self.tasks.spawn(async move { shared.api.remove(gang, resource_version).await });
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
