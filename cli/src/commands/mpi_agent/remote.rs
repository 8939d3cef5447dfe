//! One command in one worker.

use std::process::ExitCode;
use std::time::Duration;

use futures::future::OptionFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use kube::{Api, Client, Config};
use tokio::time::{Instant, sleep};

use super::words::Remote;
use crate::error::Error;
use crate::remote::{copy, exit_code};

/// What a remote shell exits with when it could not run the command, as ssh does.
const NOT_RUN: u8 = 255;
/// How long a worker may take to run: its name is known before its image is there.
const PATIENCE: Duration = Duration::from_hours(1);
const PAUSE: Duration = Duration::from_millis(100);
/// Variables by which the controller says where the workers are.
const NAMESPACE: &str = "MUSTER_MPI_NAMESPACE";
const CONTAINER: &str = "MUSTER_MPI_CONTAINER";

/// Runs the command; its exit code is the command's.
pub(super) async fn run(remote: Remote) -> Result<ExitCode, Error> {
    start(remote).await.map_err(|error| error.with_code(NOT_RUN))
}

async fn start(remote: Remote) -> Result<ExitCode, Error> {
    let config = config().await?;
    let named = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
    let namespace = named(NAMESPACE).unwrap_or_else(|| config.default_namespace.clone());
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, &namespace);
    await_running(&pods, &remote.pod).await?;
    let reads = !remote.without_input && !has_null_input();
    let parameters = AttachParams {
        container: named(CONTAINER),
        stdin: reads,
        stdout: true,
        stderr: true,
        tty: false,
        ..AttachParams::default()
    };
    let mut process = pods.exec(&remote.pod, ["/bin/sh", "-c", &remote.command], &parameters).await?;
    if let Some(input) = process.stdin() {
        // It ends with the command, not before: whoever calls may leave the input open for ever.
        tokio::spawn(copy(tokio::io::stdin(), input));
    }
    let status = process.take_status();
    let output = process.stdout().map(|output| copy(output, tokio::io::stdout()));
    let errors = process.stderr().map(|errors| copy(errors, tokio::io::stderr()));
    tokio::join!(OptionFuture::from(output), OptionFuture::from(errors));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status {
        Some(status) => exit_code(&status).map(ExitCode::from),
        None => Err(Error::new(format!("the connection to pod {} broke", remote.pod))),
    }
}

/// The pod's own account. Where pods see the files of their machine somebody's kubeconfig is among them, and may name a
/// server that is reached from there alone; so that is for those who are in no pod.
async fn config() -> Result<Config, Error> {
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(_) => Config::infer().await.map_err(|error| Error::from_source("no cluster", &error)),
    }
}

async fn await_running(pods: &Api<Pod>, name: &str) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let phase = pods.get(name).await?.status.and_then(|status| status.phase).unwrap_or_default();
        match phase.as_str() {
            "Running" => return Ok(()),
            "Failed" | "Succeeded" => return Err(Error::new(format!("pod {name} has ended ({phase})"))),
            _ if Instant::now() >= deadline => {
                return Err(Error::new(format!("pod {name} does not run: its phase is {phase}")));
            }
            _ => sleep(PAUSE).await,
        }
    }
}

/// Whether there is nothing to read.
fn has_null_input() -> bool {
    std::fs::read_link("/proc/self/fd/0").is_ok_and(|file| file.as_os_str() == "/dev/null")
}
