//! Reports of progress to the server of Kubeflow's trainer, as its proposal 2779 has them: the variables of a TrainJob's
//! pod say where it is.
//!
//! A thread posts what is known latest, at most every few seconds. Training never waits for it but for a moment at its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::report::{Evaluation, Progress};

const ADDRESS: &str = "KUBEFLOW_TRAINER_SERVER_URL";
const AUTHORITY_FILE: &str = "KUBEFLOW_TRAINER_SERVER_CA_CERT";
const TOKEN_FILE: &str = "KUBEFLOW_TRAINER_SERVER_TOKEN";

/// Pause between two reports.
const EVERY: Duration = Duration::from_secs(5);
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the reports go.
#[derive(Clone, Debug)]
struct Server {
    address: String,
    authority_file: PathBuf,
    /// Read for every report, since it is renewed.
    token_file: PathBuf,
}

impl Server {
    /// That of the variables, if all are set.
    fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        Some(Self {
            address: variable(ADDRESS)?,
            authority_file: variable(AUTHORITY_FILE)?.into(),
            token_file: variable(TOKEN_FILE)?.into(),
        })
    }

    async fn post(&self, body: &Value) -> Result<(), String> {
        let read = |path: &PathBuf| fs_err::read(path).map_err(|error| error.to_string());
        let token = String::from_utf8(read(&self.token_file)?)
            .map_err(|_| format!("{} holds no token", self.token_file.display()))?;
        let client = client(&read(&self.authority_file)?)
            .map_err(|error| format!("{}: {}", self.authority_file.display(), chain(&*error)))?;
        let request = client.post(&self.address).bearer_auth(token.trim());
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.map_err(|error| chain(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("it answers {status}: {}", message(&answer.text().await.unwrap_or_default())))
    }
}

/// A client that trusts this authority, PEM, alone.
fn client(authority: &[u8]) -> Result<Client, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(config).timeout(PATIENCE).build()?)
}

/// What a refusal says, of which a few words are enough.
fn message(answer: &str) -> String {
    let told = serde_json::from_str::<Value>(answer).ok();
    let message = told.as_ref().and_then(|told| told["message"].as_str()).unwrap_or(answer);
    message.chars().take(200).collect()
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The progress of this process, and a thread that reports it.
#[derive(Debug)]
pub(crate) struct StatusReports {
    /// When the first step of this process was told, and which it was.
    began: Option<(Instant, u64)>,
    latest: Option<Progress>,
    evaluation: Option<Evaluation>,
    /// Taken at the end.
    said: Option<watch::Sender<Option<Value>>>,
    thread: Option<JoinHandle<()>>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl StatusReports {
    /// Begins, if the environment names a server.
    pub(crate) fn start() -> Option<Self> {
        let server = Server::of_variables(|name| std::env::var(name).ok())?;
        let (said, heard) = watch::channel(None);
        let trouble = Arc::default();
        let (told, runtime) =
            (Arc::clone(&trouble), tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?);
        let thread = std::thread::Builder::new()
            .name("status".into())
            .spawn(move || runtime.block_on(report(&server, heard, &told)))
            .ok()?;
        let (said, thread) = (Some(said), Some(thread));
        Some(Self { began: None, latest: None, evaluation: None, said, thread, trouble })
    }

    /// After every step.
    pub(crate) fn step(&mut self, progress: &Progress) {
        self.began.get_or_insert_with(|| (Instant::now(), progress.step));
        self.latest = Some(*progress);
        self.say();
    }

    /// After an evaluation.
    pub(crate) fn evaluation(&mut self, evaluation: &Evaluation) {
        self.evaluation = Some(*evaluation);
        self.say();
    }

    /// Why the last report was not taken, unless that was asked before.
    pub(crate) fn take_trouble(&self) -> Option<String> {
        self.trouble.lock().take()
    }

    fn say(&self) {
        let Some((progress, said)) = self.latest.as_ref().zip(self.said.as_ref()) else { return };
        let step_seconds = self.began.and_then(|(at, first)| {
            let steps = progress.step.saturating_sub(first);
            (steps > 0).then(|| at.elapsed().as_secs_f64() / steps as f64)
        });
        said.send_replace(Some(status(progress, self.evaluation.as_ref(), step_seconds)));
    }
}

impl Drop for StatusReports {
    /// The last report is the one that counts.
    fn drop(&mut self) {
        self.said = None;
        if let Some(thread) = self.thread.take() {
            // It waits for the server only so long.
            let _ = thread.join();
        }
    }
}

/// Posts what is said until nobody says anything any more, and then once more if that is news.
async fn report(server: &Server, mut heard: watch::Receiver<Option<Value>>, trouble: &Mutex<Option<String>>) {
    let mut was_good = true;
    while heard.changed().await.is_ok() {
        let Some(body) = heard.borrow_and_update().clone() else { continue };
        let posted = server.post(&body).await;
        // Told once, until one is taken again.
        if let (Err(error), true) = (&posted, was_good) {
            *trouble.lock() = Some(format!("{}: {error}", server.address));
        }
        was_good = posted.is_ok();
        let pause = tokio::time::sleep(EVERY);
        tokio::select! {
            () = pause => {}
            () = ended(heard.clone()) => {}
        }
    }
}

/// Until nobody says anything any more.
async fn ended(mut heard: watch::Receiver<Option<Value>>) {
    while heard.changed().await.is_ok() {}
}

/// What is posted.
fn status(progress: &Progress, evaluation: Option<&Evaluation>, step_seconds: Option<f64>) -> Value {
    let Progress { step, steps_total, .. } = *progress;
    let percentage = (step.min(steps_total) * 100).checked_div(steps_total).unwrap_or(0);
    let left = steps_total.saturating_sub(step) as f64;
    let remaining = step_seconds.map(|seconds| (seconds * left).round().min(f64::from(i32::MAX)) as i32);
    let mut metrics = vec![
        ("loss", f64::from(progress.loss)),
        ("train_accuracy", f64::from(progress.train_accuracy)),
        ("learning_rate", f64::from(progress.learning_rate)),
        ("samples_per_second", progress.samples_per_second),
    ];
    metrics.extend(step_seconds.map(|seconds| ("step_seconds", seconds)));
    if let Some(Evaluation { loss, accuracy }) = evaluation {
        metrics.extend([("test_loss", *loss), ("test_accuracy", *accuracy)]);
    }
    let metric = |(name, value): (&str, f64)| json!({"name": name, "value": format!("{value:.6}")});
    json!({"trainerStatus": {
        "progressPercentage": percentage,
        "estimatedRemainingSeconds": remaining,
        "metrics": metrics.into_iter().map(metric).collect::<Vec<_>>(),
        "lastUpdatedTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: Progress = Progress {
        step: 30,
        steps_total: 120,
        epoch: 1,
        loss: 0.5,
        train_accuracy: 0.75,
        samples_per_second: 100.0,
        learning_rate: 0.001,
        gradient_norm: None,
        communication: Duration::ZERO,
    };

    #[test]
    fn a_report_has_the_fields_of_the_status() {
        let evaluation = Evaluation { loss: 0.25, accuracy: 0.9 };
        let said = &status(&PROGRESS, Some(&evaluation), Some(0.5))["trainerStatus"];
        assert_eq!(
            (&said["progressPercentage"], &said["estimatedRemainingSeconds"]),
            (&json!(25), &json!(45))
        );
        let metrics = said["metrics"].as_array().unwrap();
        assert_eq!(metrics[0], json!({"name": "loss", "value": "0.500000"}));
        assert_eq!(metrics.last().unwrap(), &json!({"name": "test_accuracy", "value": "0.900000"}));
        let early = &status(&Progress { step: 0, ..PROGRESS }, None, None)["trainerStatus"];
        assert_eq!(
            (&early["progressPercentage"], &early["estimatedRemainingSeconds"]),
            (&json!(0), &Value::Null)
        );
    }

    #[test]
    fn all_three_variables_make_a_server() {
        let all = [(ADDRESS, "https://server/status"), (AUTHORITY_FILE, "/ca"), (TOKEN_FILE, "/token")];
        let with = |count: usize| {
            Server::of_variables(|name| {
                all[..count].iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(with(3).is_some() && with(2).is_none());
    }

    #[test]
    fn a_refusal_is_told_in_a_few_words() {
        assert_eq!(message(r#"{"kind": "Status", "message": "not yours"}"#), "not yours");
        assert_eq!(message(&"x".repeat(1000)).len(), 200);
    }
}
