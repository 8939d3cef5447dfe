//! Waiting until an interactive job has its place and its pod runs, and telling why it does not.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use muster_batch_core::job::SCRIPT;
use muster_batch_core::state::{Row, State, rows};
use muster_batch_core::{Kind, hosts, names};
use muster_trainer_api::MpiJob;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::notes::Notes;
use crate::batch::{self, Forecasts};
use crate::connect::Connection;
use crate::error::Error;

/// How often a job that waits is looked at when nothing is heard of it: forecasts change with other jobs.
const LOOK: Duration = Duration::from_secs(15);
/// How long the scheduler may take to say whether a job that is to start at once has to wait.
const AT_ONCE: Duration = Duration::from_secs(10);
/// A start that moves by less is not told again.
const SAME_START: Duration = Duration::from_mins(1);

/// A job that is to start.
pub(crate) struct Start<'a> {
    /// Where it is.
    pub(crate) connection: &'a Connection,
    /// Its number.
    pub(crate) id: u64,
    /// Its kind.
    pub(crate) kind: Kind,
    /// How long it may wait for a place, if not for ever; when it may not wait at all the scheduler is asked.
    pub(crate) immediate: Option<Duration>,
    /// For what is to be told.
    pub(crate) notes: &'a Notes,
}

/// Why a job does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wait {
    text: String,
    start: Option<Timestamp>,
}

impl Wait {
    /// Whether one who was told the other need not be told this.
    fn is_known(&self, told: &Self) -> bool {
        let moved = match (self.start, told.start) {
            (Some(now), Some(then)) => now.duration_since(then).unsigned_abs() >= SAME_START,
            (now, then) => now.is_some() != then.is_some(),
        };
        self.text == told.text && !moved
    }

    /// The sentence for people; times as in the queue's list.
    fn sentence(&self, id: u64) -> String {
        let local = |start: Timestamp| {
            start.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
        };
        let start = self.start.map(|start| format!("; it is expected to start at {}", local(start)));
        format!("job {id} {}{}", self.text, start.unwrap_or_default())
    }
}

/// What one look at the job shows.
enum Look {
    /// Its pod runs.
    Runs { pod: String, nodes: String },
    /// It waits; for a place, or for something else.
    Waits { wait: Option<Wait>, for_a_place: bool },
}

impl Start<'_> {
    /// Waits for the pod of the job, which is returned by its name.
    ///
    /// # Errors
    /// The job has ended, or has no place in time.
    pub(crate) async fn wait(&self) -> Result<String, Error> {
        let began = Instant::now();
        let patience = self.immediate.map(|patience| if patience.is_zero() { AT_ONCE } else { patience });
        let given_up = patience.map(|patience| began + patience);
        let mut changes = self.changes();
        let mut every = interval(LOOK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<Wait> = None;
        loop {
            let late = async {
                match given_up {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let too_late = tokio::select! {
                biased;
                Some(()) = changes.next() => false,
                _ = every.tick() => false,
                () = late => true,
            };
            let (wait, for_a_place) = match self.look().await? {
                None => continue,
                Some(Look::Runs { pod, nodes }) => {
                    self.notes.tell(&format!("job {} runs on {nodes}", self.id));
                    return Ok(pod);
                }
                Some(Look::Waits { wait, for_a_place }) => (wait, for_a_place),
            };
            let at_once = self.immediate.is_some_and(|patience| patience.is_zero());
            if for_a_place && (too_late || (at_once && wait.is_some())) {
                let why = wait.map_or_else(
                    || format!("job {} has no place yet", self.id),
                    |wait| wait.sentence(self.id),
                );
                return Err(
                    Error::new(why).with_hint("without --immediate the shell begins when there is room")
                );
            }
            if let Some(wait) = wait
                && !told.as_ref().is_some_and(|told| wait.is_known(told))
            {
                self.notes.tell(&wait.sentence(self.id));
                told = Some(wait);
            }
        }
    }

    /// Looks at the job; none if the server does not answer for now.
    async fn look(&self) -> Result<Option<Look>, Error> {
        let (connection, id) = (self.connection, self.id);
        let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
        let own = ListParams::default().labels(&format!("{}={id}", names::ID));
        let found = async { tokio::try_join!(batch::look_up(connection, id), pods.list(&own)) }.await;
        let (work, pods) = match found {
            Ok((work, pods)) => (work, pods.items),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                return Err(kube::Error::Api(status).into());
            }
            Err(_) => return Ok(None),
        };
        let Some(work) = work else {
            return Err(Error::new(format!("job {id} was deleted before it started")));
        };
        let Some(mut row) = rows(&work, &pods.iter().collect::<Vec<_>>()).pop() else { return Ok(None) };
        if row.state.is_over() {
            return Err(over(&row));
        }
        let of_shell = pods.iter().find(|pod| is_of_shell(pod));
        if let Some(pod) = of_shell.filter(|pod| runs(pod)) {
            let own = || pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).into_iter().collect();
            let nodes = if row.nodes.is_empty() { own() } else { row.nodes };
            let pod = pod.metadata.name.clone().unwrap_or_default();
            return Ok(Some(Look::Runs { pod, nodes: hosts::list(&nodes) }));
        }
        let now = Timestamp::now();
        let for_a_place = row.unplaced.is_some();
        // Until the scheduler has looked at it there is nothing to say.
        if row.reason.as_deref() == Some("None") || row.state != State::Pending {
            return Ok(Some(Look::Waits { wait: None, for_a_place }));
        }
        let forecasts = Forecasts::read(connection, std::slice::from_ref(&row), now).await;
        forecasts.refine(&mut row);
        let wait = wait(&row, forecasts.detail(&row), forecasts.start(&row), &pods);
        Ok(Some(Look::Waits { wait, for_a_place }))
    }

    /// Something whenever the job or one of its pods may have changed.
    fn changes(&self) -> BoxStream<'static, ()> {
        let labels = format!("{}={}", names::ID, self.id);
        let pods = self.changes_of::<Pod>(watcher::Config::default().labels(&labels));
        let name = format!("metadata.name={}", names::job_name(self.id));
        let named = watcher::Config::default().fields(&name);
        let jobs = match self.kind {
            Kind::Job => self.changes_of::<Job>(named),
            Kind::MpiJob => self.changes_of::<MpiJob>(named),
        };
        stream::select(pods, jobs).boxed()
    }

    fn changes_of<K>(&self, which: watcher::Config) -> BoxStream<'static, ()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let objects: Api<K> = Api::namespaced(self.connection.client.clone(), &self.connection.namespace);
        watcher(objects, which).default_backoff().map(drop).boxed()
    }
}

fn of_script(pod: &Pod) -> Option<&ContainerStatus> {
    let mut containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers.find(|container| container.name == SCRIPT)
}

fn is_of_shell(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| &spec.containers).any(|container| container.name == SCRIPT)
}

fn runs(pod: &Pod) -> bool {
    let running = of_script(pod).and_then(|container| container.state.as_ref()?.running.as_ref());
    running.is_some() && pod.metadata.deletion_timestamp.is_none()
}

/// Why a job that is over never had a shell.
fn over(row: &Row) -> Error {
    let id = row.id;
    match row.state {
        State::Cancelled => Error::new(format!("job {id} was cancelled before its shell began")),
        State::Timeout => Error::new(format!("the time of job {id} was over before its shell began")),
        _ => Error::new(format!("job {id} ended before its shell began"))
            .with_hint(format!("`muster logs job/{}` may say why", names::job_name(id))),
    }
}

/// Why a job waits; none if that is only a matter of moments.
fn wait(row: &Row, detail: Option<&str>, start: Option<Timestamp>, pods: &[Pod]) -> Option<Wait> {
    let reason = row.reason.as_deref()?;
    let detail = detail.map(str::to_owned);
    let text = match (reason, &row.unplaced) {
        ("None", _) => return None,
        ("Prolog", _) => {
            let (reason, message) = pods.iter().find_map(what_keeps_a_container)?;
            format!("has its place, but its container does not start ({reason}): {message}")
        }
        (reason, Some(pod)) => match detail.or_else(|| what_the_scheduler_says(pods, pod)) {
            Some(detail) => format!("waits ({reason}): {detail}"),
            None => format!("waits ({reason})"),
        },
        (reason, None) => format!("waits ({reason})"),
    };
    Some(Wait { text, start })
}

/// What keeps a container of a pod from its start, apart from the steps that every start takes.
fn what_keeps_a_container(pod: &Pod) -> Option<(String, String)> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    let mut waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    waiting.find_map(|waiting| {
        let reason = waiting.reason.clone()?;
        let is_a_step = matches!(reason.as_str(), "ContainerCreating" | "PodInitializing");
        (!is_a_step).then(|| (reason, waiting.message.clone().unwrap_or_default()))
    })
}

fn what_the_scheduler_says(pods: &[Pod], name: &str) -> Option<String> {
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))?;
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "PodScheduled")?.message.clone()
}
