//! Events are forgotten after an hour.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_store::Query;
use serde_json::Value;

use crate::app::App;
use crate::meta::{at, meta};

const LIFE: SignedDuration = SignedDuration::from_hours(1);
const INTERVAL: Duration = Duration::from_mins(1);

/// When the event last happened.
fn last_seen(event: &Value) -> Option<Timestamp> {
    let times = [
        at(event, &["series", "lastObservedTime"]).as_str(),
        at(event, &["lastTimestamp"]).as_str(),
        Some(meta(event, "creationTimestamp")),
    ];
    times.into_iter().flatten().filter_map(|text| text.parse().ok()).max()
}

/// Deletes old events until the server ends.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        forget(&app, Timestamp::now()).await;
    }
}

async fn forget(app: &App, now: Timestamp) {
    for entry in app.store.list(&Query::new("core/events")).entries {
        let old = last_seen(&entry.object()).is_some_and(|seen| now.duration_since(seen) > LIFE);
        if old && let Err(error) = app.store.delete(entry.key().clone(), entry.revision(), None).await {
            tracing::debug!(%error, "an old event stays for now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_latest_of_an_events_times_counts() {
        let event = json!({
            "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" }, "lastTimestamp": "2026-01-01T05:00:00Z",
        });
        assert_eq!(last_seen(&event), "2026-01-01T05:00:00Z".parse().ok());
    }
}
