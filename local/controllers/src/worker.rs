//! Takes keys from a queue and reconciles them.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use muster_machinery::CancellationToken;

use crate::error::Result;
use crate::queue::Queue;

/// Failures in a row after which a person should look.
const TELL_AFTER: u32 = 8;

/// One controller.
pub(crate) trait Reconcile: Send + Sync + 'static {
    /// What it is asked to bring in order.
    type Key: Clone + Eq + Hash + Ord + Display + Send + Sync + 'static;

    /// Name in logs.
    const NAME: &'static str;

    /// What waits.
    fn queue(&self) -> &Queue<Self::Key>;

    /// Brings the object closer to what it should be; a duration asks for another look then.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Option<Duration>>> + Send;
}

/// Reconciles with so many workers until the shutdown.
pub(crate) async fn work<R: Reconcile>(controller: Arc<R>, workers: usize, shutdown: CancellationToken) {
    join_all((0..workers).map(|_| one(&*controller, &shutdown))).await;
}

async fn one<R: Reconcile>(controller: &R, shutdown: &CancellationToken) {
    let queue = controller.queue();
    while let Some(key) = shutdown.run_until_cancelled(queue.next()).await {
        let Some(outcome) = shutdown.run_until_cancelled(controller.reconcile(&key)).await else { return };
        match outcome {
            Ok(again) => {
                queue.done(&key);
                if let Some(pause) = again {
                    queue.add_after(key, pause);
                }
            }
            Err(error) => {
                let failures = queue.failed(&key);
                if failures >= TELL_AFTER && !error.is_race() {
                    tracing::warn!(controller = R::NAME, %key, failures, %error, "reconciliation keeps failing");
                } else {
                    tracing::debug!(controller = R::NAME, %key, failures, %error, "reconciling again");
                }
            }
        }
    }
}
