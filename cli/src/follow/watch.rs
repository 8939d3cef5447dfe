//! Watches a job, its pods and their logs until the job ends.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Event as Note, Pod};
use kube::api::{Api, DynamicObject, LogParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::progress::View;
use super::state::{End, JobState, News, TAIL};
use crate::connect::Connection;
use crate::kinds::Kind;
use crate::log_lines;

/// How long the last lines of the logs may take once the job has ended.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Follows the job until it ends; whatever is known is in `state`, even when this future is dropped.
pub(crate) async fn follow(
    connection: &Connection,
    kind: &Kind,
    namespace: &str,
    name: &str,
    state: &mut JobState,
    view: &mut View,
) -> End {
    let client = &connection.client;
    let jobs: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let job_events = watcher(jobs, watcher::Config::default().fields(&format!("metadata.name={name}")))
        .backoff(muster_machinery::watch::backoff());
    let selector = format!("{}={name}", muster_trainer_api::label::JOB_NAME);
    let pod_events = watcher(pods.clone(), watcher::Config::default().labels(&selector))
        .backoff(muster_machinery::watch::backoff());
    let notes: Api<Note> = Api::namespaced(client.clone(), namespace);
    let warnings = watcher::Config::default().fields("type=Warning,involvedObject.kind=Pod");
    let warnings = watcher(notes, warnings).backoff(muster_machinery::watch::backoff());
    pin_mut!(job_events, pod_events, warnings);
    let (lines_in, mut lines) = mpsc::channel::<(String, String)>(1024);
    let mut logs = JoinSet::new();
    let mut followed: BTreeMap<String, (String, i32)> = BTreeMap::new();
    let mut seen = false;
    loop {
        let news = tokio::select! {
            Some(event) = job_events.next() => match event {
                Ok(Event::Apply(job) | Event::InitApply(job)) => {
                    seen = true;
                    serde_json::to_value(&job).map(|job| state.job_seen(&job)).unwrap_or_default()
                }
                Ok(Event::Delete(_)) if seen => return End::Deleted,
                _ => News::new(),
            },
            Some(event) = pod_events.next() => match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => state.pod_seen(&pod),
                Ok(Event::Delete(pod)) => {
                    state.pod_gone(pod.metadata.name.as_deref().unwrap_or_default());
                    News::new()
                }
                _ => News::new(),
            },
            Some(event) = warnings.next() => match event {
                Ok(Event::Apply(warning) | Event::InitApply(warning)) => state.warning_seen(&warning),
                _ => News::new(),
            },
            Some((pod, line)) = lines.recv() => state.line_seen(&pod, &line),
        };
        for (pod, view) in &state.pods {
            if view.has_log && followed.get(pod) != Some(&view.incarnation) {
                followed.insert(pod.clone(), view.incarnation.clone());
                logs.spawn(read_log(pods.clone(), pod.clone(), lines_in.clone()));
            }
        }
        view.update(state, &news);
        if let Some(end) = state.end.clone() {
            drop(lines_in);
            let rest = async {
                while let Some((pod, line)) = lines.recv().await {
                    let news = state.line_seen(&pod, &line);
                    view.update(state, &news);
                }
            };
            // A log that does not end keeps its last lines for `muster logs`.
            let _complete = timeout(LAST_LINES, rest).await;
            return end;
        }
    }
}

/// The last lines of the container that failed, where its log is still there.
pub(crate) async fn last_lines(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Vec<String> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let parameters = LogParams {
        container: Some(container.to_owned()),
        tail_lines: i64::try_from(TAIL).ok(),
        ..LogParams::default()
    };
    let read = async {
        let mut lines = Vec::new();
        let mut log = pods.log_stream(pod, &parameters).await.ok()?;
        while let Ok(Some(line)) = log_lines::next(&mut log).await {
            lines.push(log_lines::shown(&line));
        }
        Some(lines)
    };
    timeout(LAST_LINES, read).await.ok().flatten().unwrap_or_default()
}

/// Sends each line of a container's log until it ends.
async fn read_log(pods: Api<Pod>, pod: String, lines: mpsc::Sender<(String, String)>) {
    let parameters = LogParams { follow: true, ..LogParams::default() };
    let stream = match pods.log_stream(&pod, &parameters).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, pod, "cannot read the log");
            return;
        }
    };
    let mut log = stream;
    while let Ok(Some(line)) = log_lines::next(&mut log).await {
        if lines.send((pod.clone(), log_lines::shown(&line))).await.is_err() {
            return;
        }
    }
}
