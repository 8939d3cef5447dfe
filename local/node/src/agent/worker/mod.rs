//! The worker of one pod: from the first sight of the pod on a node until its object is gone.
//!
//! One task owns everything about the pod. It waits for whatever comes first — a change of the object, word from the
//! pod's init, the outcome of a probe, a time — then takes the next step and reports the status.

mod end;
mod report;
mod start;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::end::Ending;
use self::report::Reporter;
use super::context::{Change, Context};
use super::events::Event;
use super::probes::{Outcome, ProbeKind};
use super::record::Record;
use crate::environment::Facts;
use crate::network::PodNetwork;
use crate::plan::{self, Phase, RestartPolicy, Run, Step, Termination};
use crate::protocol::{ContainerExit, ContainerState, ExecStart, InitEvent, InitRequest};
use crate::runtime::PodProcess;
use crate::sources::{Reference, references};
use crate::status::Overall;

/// What is missing is looked for again after this time, and at once when it appears.
const RETRY: Duration = Duration::from_secs(2);
/// How many requests of probes wait.
const PROBE_QUEUE: usize = 16;

/// Takes exit code and output of a command beside a container, or why it could not run.
pub(crate) type ExecAnswer = oneshot::Sender<Result<(i32, String), String>>;

/// Word from a task of the pod: a probe or a hook.
#[derive(Debug)]
pub(crate) enum Word {
    /// A command is to run beside a container.
    Exec { container: String, argv: Vec<String>, timeout: Duration, answer: ExecAnswer },
    /// A probe changed its mind.
    Probe { container: String, attempt: u32, kind: ProbeKind, outcome: Outcome },
    /// postStart is over.
    PostStart { container: String, attempt: u32, result: Result<(), String> },
    /// A container that was asked to end did not.
    Kill { container: String, attempt: u32 },
    /// preStop of every container is over, or there was none.
    PreStopDone,
}

pub(crate) struct Worker {
    context: Arc<Context>,
    updates: watch::Receiver<Option<Arc<Pod>>>,
    changes: broadcast::Receiver<Change>,
    pod: Arc<Pod>,
    spec: SpecOf,
    policy: RestartPolicy,
    references: std::collections::BTreeSet<Reference>,
    directory: PathBuf,
    record: Record,
    runs: Vec<Run>,
    overall: Overall,
    facts: Facts,
    process: Option<PodProcess>,
    network: Option<PodNetwork>,
    ending: Option<Ending>,
    retry_at: Option<Timestamp>,
    /// When the tokens in the pod's volumes are fetched anew.
    rotate_at: Option<Timestamp>,
    /// Reasons to restart a container that are known before it ends (a failed probe).
    last_words: BTreeMap<String, String>,
    words: (mpsc::Sender<Word>, mpsc::Receiver<Word>),
    tasks: BTreeMap<String, JoinSet<()>>,
    execs: BTreeMap<u64, ExecAnswer>,
    exec_count: u64,
    reporter: Reporter,
    deleted_version: Option<String>,
}

/// The spec inside a pod: a copy of it would be as large as the rest.
struct SpecOf(Arc<Pod>);

impl SpecOf {
    /// Nothing for a pod without a spec, which no API server gives out.
    fn of(pod: &Arc<Pod>) -> Option<Self> {
        pod.spec.is_some().then(|| Self(Arc::clone(pod)))
    }
}

impl Deref for SpecOf {
    type Target = PodSpec;

    fn deref(&self) -> &PodSpec {
        static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
        self.0.spec.as_ref().unwrap_or(&EMPTY)
    }
}

/// How a worker comes to rest.
#[derive(Debug)]
pub(crate) enum Rest {
    /// The pod's object is gone, and so is the pod.
    Gone,
    /// The pod has ended and the API knows it: a pod may stay like that for days. The next worker of the pod takes over
    /// from its record and its status; there may be news for it already.
    Ended(Box<Record>, watch::Receiver<Option<Arc<Pod>>>),
}

/// What woke the worker.
enum Wake {
    Object,
    Init(Option<InitEvent>),
    Word(Word),
    Change(Option<Change>),
    Reported,
    Time,
}

impl Worker {
    pub(crate) fn new(
        context: Arc<Context>,
        pod: Arc<Pod>,
        updates: watch::Receiver<Option<Arc<Pod>>>,
        found: Option<Record>,
    ) -> Option<Self> {
        let metadata = &pod.metadata;
        let uid = metadata.uid.clone()?;
        let spec = SpecOf::of(&pod)?;
        let directory = context.pods_dir().join(&uid);
        let begun = found.as_ref().is_some_and(|record| !record.finished);
        let record = found.unwrap_or_else(|| Record {
            uid: uid.clone(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            node: spec.node_name.clone().unwrap_or_default(),
            address: None,
            gpus: Vec::new(),
            peers: None,
            volumes: BTreeMap::new(),
            finished: false,
        });
        let before = pod.status.clone().unwrap_or_default();
        // An agent that was killed may have started the pod without having told so.
        let start_time = before.start_time.map(|time| time.0).or_else(|| begun.then(Timestamp::now));
        let overall = Overall { start_time, host_ip: context.host_ip.to_string(), uid, ..Overall::default() };
        let facts = Facts {
            pod_ip: String::new(),
            host_ip: context.host_ip.to_string(),
            allocatable: context.allocatable.get(&record.node).cloned().unwrap_or_default(),
        };
        Some(Self {
            updates,
            changes: context.changes.subscribe(),
            policy: plan::restart_policy(&spec),
            references: references(&pod),
            directory,
            record,
            runs: plan::runs(&spec),
            overall,
            facts,
            process: None,
            network: None,
            ending: None,
            retry_at: None,
            rotate_at: None,
            last_words: BTreeMap::new(),
            words: mpsc::channel(PROBE_QUEUE),
            tasks: BTreeMap::new(),
            execs: BTreeMap::new(),
            exec_count: 0,
            reporter: Reporter::default(),
            deleted_version: None,
            context,
            pod,
            spec,
        })
    }

    /// Works until the pod's object is gone and nothing of the pod is left, or until nothing is to be done for a pod that
    /// has ended.
    pub(crate) async fn run(mut self) -> Rest {
        // Most of its life a worker waits: what it needs for its steps alone is not kept meanwhile.
        Box::pin(self.take_over()).await;
        loop {
            if self.updates.borrow().is_none() {
                Box::pin(self.vanish()).await;
                return Rest::Gone;
            }
            Box::pin(self.step()).await;
            self.report(false);
            if self.has_rest() {
                return Rest::Ended(Box::new(self.record), self.updates);
            }
            let wake = self.wait().await;
            Box::pin(self.handle(wake)).await;
        }
    }

    /// Whether only the deletion of the pod can give it work again.
    fn has_rest(&self) -> bool {
        self.overall.finished.is_some()
            && self.pod.metadata.deletion_timestamp.is_none()
            && self.process.is_none()
            && self.ending.is_none()
            && self.retry_at.is_none()
            && self.reporter.has_told_all()
    }

    async fn wait(&mut self) -> Wake {
        let deadline = self.wake_time();
        let init = async {
            match &mut self.process {
                Some(process) => process.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.updates.changed() => match changed {
                Ok(()) => Wake::Object,
                // The agent is stopping: it drops the worker, the pod stays.
                Err(_) => std::future::pending().await,
            },
            event = init => Wake::Init(event),
            Some(word) = self.words.1.recv() => Wake::Word(word),
            change = self.changes.recv() => match change {
                Ok(change) => Wake::Change(Some(change)),
                Err(broadcast::error::RecvError::Lagged(_)) => Wake::Change(None),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            },
            () = self.reporter.done() => Wake::Reported,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Wake::Time,
        }
    }

    fn wake_time(&self) -> Option<Instant> {
        let now = Timestamp::now();
        let times = [
            self.retry_at,
            self.rotate_at.filter(|_| self.process.is_some()),
            self.ending.as_ref().map(Ending::wake_time),
            self.active_deadline().filter(|_| self.ending.is_none() && self.overall.finished.is_none()),
            match plan::next_step(&self.runs, self.policy, now) {
                Step::Wait(at) if self.ending.is_none() && self.overall.finished.is_none() => at,
                _ => None,
            },
            self.reporter.not_before(),
        ];
        times.into_iter().flatten().min().map(|at| {
            let left = at.duration_since(now);
            Instant::now() + Duration::try_from(left).unwrap_or_default()
        })
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec.active_deadline_seconds?;
        self.overall.start_time?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
    }

    async fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Object => {
                let Some(pod) = self.updates.borrow_and_update().clone() else { return };
                if let Some(spec) = SpecOf::of(&pod) {
                    self.spec = spec;
                }
                self.pod = pod;
            }
            Wake::Init(Some(event)) => self.on_event(event).await,
            Wake::Init(None) => self.reconnect().await,
            Wake::Word(word) => self.on_word(word).await,
            Wake::Change(change) => {
                let concerns = change.is_none_or(|(namespace, reference)| {
                    namespace == self.record.namespace && self.references.contains(&reference)
                });
                if concerns {
                    self.retry_at = None;
                    self.refresh_volumes().await;
                }
            }
            Wake::Reported | Wake::Time => {}
        }
    }

    /// Takes the next step, if one is due.
    async fn step(&mut self) {
        let now = Timestamp::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        if self.rotate_at.is_some_and(|at| at <= now) && self.process.is_some() {
            self.rotate_later();
            self.refresh_volumes().await;
        }
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.step_deletion().await;
            return;
        }
        if self.overall.finished.is_some() {
            return;
        }
        if self.ending.is_some() {
            self.step_ending().await;
            return;
        }
        if self.active_deadline().is_some_and(|at| at <= now) {
            self.overall.reason = Some("DeadlineExceeded".to_owned());
            self.overall.message =
                Some("Pod was active on node longer than the specified deadline".to_owned());
            self.begin_ending(Some(false), self.grace()).await;
            return;
        }
        if self.retry_at.is_some() {
            return;
        }
        match plan::next_step(&self.runs, self.policy, now) {
            Step::Start(places) => {
                for place in places {
                    self.start(place).await;
                    if self.overall.finished.is_some() {
                        return;
                    }
                }
            }
            Step::Wait(_) => {}
            Step::Finish { success } => self.begin_ending(Some(success), self.grace()).await,
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod.metadata.deletion_grace_period_seconds;
        let seconds = seconds.or(self.spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    fn container(&self, name: &str) -> Option<Container> {
        let all = self.spec.init_containers.iter().flatten().chain(&self.spec.containers);
        all.into_iter().find(|container| container.name == name).cloned()
    }

    fn run_of(&mut self, name: &str) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.name == name)
    }

    fn event(&self, container: Option<&str>, warning: bool, reason: &str, message: impl Into<String>) {
        self.context.event(Event::new(&self.pod, container, warning, reason, message.into()));
    }

    async fn tell_init(&mut self, request: &InitRequest) {
        if let Some(process) = &mut self.process
            && let Err(error) = process.send(request).await
        {
            tracing::warn!(pod = %self.record.name, %error, "a pod's init does not answer");
        }
    }

    async fn on_event(&mut self, event: InitEvent) {
        match event {
            InitEvent::Started { container, attempt, at } => {
                let Some(run) = self.run_of(&container).filter(|run| run.restarts == attempt) else { return };
                run.phase = Phase::Running { started: at };
                self.reporter.wait_again();
                self.event(Some(&container), false, "Started", format!("Started container {container}"));
                if self.ending.as_ref().is_some_and(Ending::is_term_sent) {
                    // It was not there yet when the others were told.
                    self.tell_init(&InitRequest::Signal { container, signal: libc::SIGTERM }).await;
                } else {
                    self.watch_container(&container, attempt);
                }
            }
            InitEvent::Exited(exit) => self.on_exit(exit),
            InitEvent::ExecDone { id, result, output } => {
                if let Some(answer) = self.execs.remove(&id) {
                    let _ = answer.send(result.map(|code| (code, output)));
                }
            }
            InitEvent::State(states) => {
                for state in states {
                    match state {
                        ContainerState::Running { container, attempt, started } => {
                            let Some(run) = self.run_of(&container) else { continue };
                            run.restarts = attempt;
                            run.phase = started.map_or(Phase::Starting, |started| Phase::Running { started });
                            if started.is_some() && !self.tasks.contains_key(&container) {
                                let Some(run) = self.run_of(&container) else { continue };
                                run.hook_done = true;
                                self.watch_container(&container, attempt);
                            }
                        }
                        ContainerState::Exited(exit) => {
                            let is_known = |run: &Run| matches!(&run.phase, Phase::Ended(end) if end.finished == exit.finished);
                            if self.run_of(&exit.container).is_some_and(|run| is_known(run)) {
                                continue;
                            }
                            if let Some(run) = self.run_of(&exit.container) {
                                run.restarts = exit.attempt;
                                run.phase = Phase::Starting;
                            }
                            self.on_exit(exit);
                        }
                    }
                }
            }
        }
    }

    fn on_exit(&mut self, exit: ContainerExit) {
        let ContainerExit { container, attempt, code, start_failure, started, finished } = exit;
        self.tasks.remove(&container);
        let word = self.last_words.remove(&container);
        let message = self.termination_message(&container, attempt, code).or(word);
        let termination = if let Some(failure) = start_failure {
            let text = format!("Error: failed to start container: {failure}");
            self.event(Some(&container), true, "Failed", text);
            let (reason, message) = ("StartError".to_owned(), Some(failure));
            Termination { code: 128, reason, message, started: None, finished }
        } else {
            let out_of_memory =
                code != 0 && self.context.groups.ran_out_of_memory(&self.record.uid, &container, attempt);
            let reason = match code {
                0 => "Completed",
                _ if out_of_memory => "OOMKilled",
                _ => "Error",
            };
            Termination { code, reason: reason.to_owned(), message, started, finished }
        };
        let ended = self.pod.metadata.name.clone().unwrap_or_default();
        let Some(run) = self.run_of(&container).filter(|run| run.restarts == attempt) else { return };
        tracing::debug!(pod = ended, container, code = termination.code, "container ended");
        plan::note_end(run, termination, finished);
    }

    /// The connection to the init is gone. The init may have cut it because this agent was too slow to read.
    async fn reconnect(&mut self) {
        if let Ok(process) = PodProcess::adopt(&self.directory) {
            tracing::debug!(pod = %self.record.name, "connected again to a pod's init");
            self.process = Some(process);
            self.tell_init(&InitRequest::State).await;
            return;
        }
        if let Some(process) = self.process.take() {
            process.end().await;
        }
        self.on_lost();
    }

    /// The init process is gone though nobody asked it to: everything of the pod died with it.
    fn on_lost(&mut self) {
        self.process = None;
        if !self.context.isolated {
            crate::agent::sweep::end_processes_of(&self.record.uid);
        }
        self.overall.sandbox_ready = false;
        self.tasks.clear();
        self.execs.clear();
        let now = Timestamp::now();
        for run in &mut self.runs {
            if matches!(run.phase, Phase::Starting | Phase::Running { .. }) {
                let started = match run.phase {
                    Phase::Running { started } => Some(started),
                    _ => None,
                };
                let message = Some("The pod's processes were killed from outside".to_owned());
                let reason = "ContainerStatusUnknown".to_owned();
                plan::note_end(run, Termination { code: 137, reason, message, started, finished: now }, now);
            }
        }
        self.context.groups.remove(&self.record.uid, None);
        self.give_back_network();
    }

    async fn on_word(&mut self, word: Word) {
        match word {
            Word::Exec { container, argv, timeout, answer } => {
                self.exec_count += 1;
                let id = self.exec_count;
                self.execs.insert(id, answer);
                let timeout_milliseconds = timeout.as_millis() as u64;
                self.tell_init(&InitRequest::Exec(ExecStart { id, container, argv, timeout_milliseconds }))
                    .await;
            }
            Word::Probe { container, attempt, kind, outcome } => {
                self.on_probe(&container, attempt, kind, outcome).await;
            }
            Word::PostStart { container, attempt, result } => {
                let Some(run) = self.run_of(&container).filter(|run| run.restarts == attempt) else { return };
                run.hook_done = true;
                if let Err(message) = result {
                    self.event(Some(&container), true, "FailedPostStartHook", &message);
                    self.last_words.insert(container.clone(), format!("postStart hook failed: {message}"));
                    self.tell_init(&InitRequest::Kill { container }).await;
                }
            }
            Word::Kill { container, attempt } => {
                if self.run_of(&container).is_some_and(|run| run.restarts == attempt) {
                    self.tell_init(&InitRequest::Kill { container }).await;
                }
            }
            Word::PreStopDone => self.send_term().await,
        }
    }

    async fn on_probe(&mut self, container: &str, attempt: u32, kind: ProbeKind, outcome: Outcome) {
        let Some(run) = self.run_of(container).filter(|run| run.restarts == attempt && run.is_running())
        else {
            return;
        };
        match (kind, &outcome) {
            (ProbeKind::Startup, Outcome::Success) => run.startup_done = true,
            (ProbeKind::Readiness, outcome) => run.probe_ready = matches!(outcome, Outcome::Success),
            _ => {}
        }
        let Outcome::Failure(message) = outcome else { return };
        self.event(Some(container), true, "Unhealthy", format!("{} probe failed: {message}", kind.name()));
        if kind != ProbeKind::Readiness {
            let text = format!(
                "Container {container} failed {} probe, will be restarted",
                kind.name().to_lowercase()
            );
            self.event(Some(container), false, "Killing", &text);
            self.last_words.insert(container.to_owned(), text);
            self.tasks.remove(container);
            let container = container.to_owned();
            self.tell_init(&InitRequest::Signal { container: container.clone(), signal: libc::SIGTERM })
                .await;
            self.kill_later(container, attempt);
        }
    }
}
