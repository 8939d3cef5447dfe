//! `muster run`: the main job. Starts the embedded cluster if none runs, applies a manifest, follows its job to
//! the end and says how it went.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use muster_machinery::shutdown::{Stop, stop_signal};
use muster_machinery::telemetry::{self, Format, Target};
use serde_json::Value;

use crate::agent::AgentArguments;
use crate::cluster::{self, Cluster, Options};
use crate::commands::delete::wait_until_gone;
use crate::commands::submit::supports_first;
use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;
use crate::follow::progress::View;
use crate::follow::state::{End, JobState};
use crate::follow::{summary, watch};
use crate::kinds::{Kind, Kinds};
use crate::manifest::{self, Document};
use crate::output;
use crate::roles::Role;

/// How long a job's pods may take to go.
const CLEAN_UP: Duration = Duration::from_secs(90);

/// Runs the job of a manifest to its end, on the embedded cluster unless another is named
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster run examples/digits/pytorchjob.yaml\n  muster run --kubeconfig ~/.kube/config job.yaml\n\nExit codes: 0 the job succeeded, 1 it failed, 130 Ctrl-C, 143 SIGTERM."
)]
pub(crate) struct Arguments {
    /// The manifest
    file: PathBuf,
    #[command(flatten)]
    agent: AgentArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let documents = supports_first(manifest::read(&arguments.file)?);
    if !documents.iter().any(is_job) {
        return Err(Error::new(format!("{} has no training job to follow", arguments.file.display()))
            .with_hint(
                "it follows kinds of kubeflow.org, such as PyTorchJob; `muster submit` applies any manifest",
            ));
    }
    telemetry::init(Format::Text, Target::StandardError, "error")?;
    let signal = stop_signal();
    tokio::pin!(signal);
    let (connection, own) = tokio::select! {
        found = cluster_for(&arguments) => found?,
        stop = &mut signal => return Ok(ExitCode::from(stop?.exit_code())),
    };
    let mut run =
        Run { connection, documents, applied: None, state: JobState::default(), view: View::choose() };
    let outcome = tokio::select! {
        outcome = run.follow_to_its_end() => outcome.map(|()| None),
        stop = &mut signal => stop.map(Some).map_err(Error::from),
    };
    run.view.finish();
    let interrupted = match &outcome {
        Ok(Some(stop)) => Some(*stop),
        _ => None,
    };
    if interrupted.is_some() {
        tokio::select! {
            cleaned = run.clean_up(own.is_some()) => cleaned?,
            again = stop_signal() => {
                again?;
                output::note("the job is being deleted; `muster get pods` shows what is left of it");
            }
        }
    }
    if let Some(cluster) = own {
        cluster.stop().await?;
    }
    outcome.map(|_| interrupted.map_or(ExitCode::SUCCESS, |stop: Stop| ExitCode::from(stop.exit_code())))
}

fn is_job(document: &Document) -> bool {
    document.api_version().starts_with("kubeflow.org/")
}

/// The cluster that was named, the embedded one that runs, or one of our own until the job has ended.
async fn cluster_for(arguments: &Arguments) -> Result<(Connection, Option<Cluster>), Error> {
    let reach = &arguments.cluster;
    let home = reach.home()?;
    if reach.named_kubeconfig().is_some() || cluster::is_running(&home) {
        return Ok((reach.connect().await?, None));
    }
    let agent = arguments.agent.clone().options()?;
    let summary = agent.summary();
    let options = Options {
        home,
        listen: ([127, 0, 0, 1], 0).into(),
        durable: false,
        agent: Some(agent),
        roles: Role::ALL.to_vec(),
        dashboard: None,
        autoscaler_period: None,
    };
    let cluster = Cluster::start(options).await?;
    output::note(&format!(
        "embedded cluster ready in {:.2} s: {summary}, isolation {}",
        cluster.started_in.as_secs_f64(),
        cluster.isolation().unwrap_or_default()
    ));
    let namespace = reach.namespace.clone().unwrap_or_else(|| "default".to_owned());
    Ok((Connection { client: cluster.client.clone(), namespace }, Some(cluster)))
}

struct Applied {
    kind: Kind,
    namespace: String,
    name: String,
}

struct Run {
    connection: Connection,
    documents: Vec<Document>,
    applied: Option<Applied>,
    state: JobState,
    view: View,
}

impl Run {
    async fn follow_to_its_end(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let kinds = Kinds::discover(&self.connection.client).await?;
        crate::api::validate(&self.connection, &kinds, &self.documents).await?;
        self.make_way(&kinds).await?;
        for document in &self.documents {
            let kind = kinds.of(document.api_version(), document.kind());
            let job = kind.filter(|_| is_job(document) && self.applied.is_none());
            if let (Some(kind), None) = (job, document.generate_name()) {
                // Before it is there: an interruption must not miss a job that the server just accepted.
                let namespace = document.namespace().unwrap_or(&self.connection.namespace).to_owned();
                self.applied =
                    Some(Applied { kind: kind.clone(), namespace, name: document.name().to_owned() });
            }
            let (applied, object) = crate::api::apply(&self.connection, &kinds, document).await?;
            let label = kind.map(Kind::label).unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            self.view.say(&format!("{label}/{name} {}", applied.word()));
            if let Some(kind) = job {
                let namespace =
                    object["metadata"]["namespace"].as_str().unwrap_or(&self.connection.namespace).to_owned();
                self.applied = Some(Applied { kind: kind.clone(), namespace, name });
            }
        }
        let Some(job) = &self.applied else { return Err(Error::new("no job was applied")) };
        let end = watch::follow(
            &self.connection,
            &job.kind,
            &job.namespace,
            &job.name,
            &mut self.state,
            &mut self.view,
        )
        .await;
        self.view.finish();
        match end {
            End::Succeeded => {
                let model = self.model_path(job).await?;
                output::print(&summary::success(&self.state, &job.name, began.elapsed(), model.as_deref()))
            }
            End::Failed(message) => {
                if let Some((pod, container)) = summary::failed_container(&self.state) {
                    let lines = watch::last_lines(&self.connection, &job.namespace, &pod, &container).await;
                    if !lines.is_empty() {
                        self.state.tails.insert(pod, lines);
                    }
                }
                Err(Error::new(summary::failure(&self.state, &job.name, &message)).with_hint(format!(
                    "`muster describe {}/{}` and `muster logs job/{}` tell more",
                    job.kind.resource.plural, job.name, job.name
                )))
            }
            End::Deleted => Err(Error::new(format!("{} was deleted before it ended", job.name))),
        }
    }

    /// A finished job of the same name gives way; a running one is somebody's.
    async fn make_way(&self, kinds: &Kinds) -> Result<(), Error> {
        let named = |document: &&Document| is_job(document) && document.generate_name().is_none();
        for document in self.documents.iter().filter(named) {
            let Some(kind) = kinds.of(document.api_version(), document.kind()) else { continue };
            let namespace = document.namespace().unwrap_or(&self.connection.namespace);
            let path = kind.path(Some(namespace), Some(document.name()));
            let Some(job) = crate::api::find(&self.connection.client, &path).await? else { continue };
            if !finished(&job) {
                return Err(Error::new(format!(
                    "{}/{} is already there and has not ended",
                    kind.label(),
                    document.name()
                ))
                .with_hint(format!(
                    "`muster logs -f job/{0}` follows it; `muster delete {1}/{0}` ends it",
                    document.name(),
                    kind.resource.plural
                )));
            }
            self.view.say(&format!("{}/{} of an earlier run gives way", kind.label(), document.name()));
            self.remove(kind, namespace, document.name()).await?;
        }
        Ok(())
    }

    async fn remove(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), Error> {
        let client = &self.connection.client;
        let deleted = crate::api::delete(client, kind, namespace, name, "Foreground", None).await?;
        let Some(deleted) = deleted else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + CLEAN_UP;
        wait_until_gone(&self.connection, kind, namespace, name, &deleted, deadline).await
    }

    /// After Ctrl-C: the job goes, with its pods. On a cluster that stops anyway nothing else needs to wait.
    async fn clean_up(&self, cluster_stops: bool) -> Result<(), Error> {
        let Some(job) = &self.applied else { return Ok(()) };
        output::note(&format!("stopping {}", job.name));
        if cluster_stops {
            crate::api::delete(
                &self.connection.client,
                &job.kind,
                &job.namespace,
                &job.name,
                "Background",
                Some(0),
            )
            .await?;
            return Ok(());
        }
        self.remove(&job.kind, &job.namespace, &job.name).await
    }

    async fn model_path(&self, job: &Applied) -> Result<Option<String>, Error> {
        match (self.state.result.get("model"), self.state.reporter()) {
            (Some(file), Some(pod)) => summary::locate(&self.connection, &job.namespace, pod, file).await,
            _ => Ok(None),
        }
    }
}

fn finished(job: &Value) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| {
        condition["status"] == "True" && matches!(condition["type"].as_str(), Some("Succeeded" | "Failed"))
    })
}
