//! `muster logs`: what containers print, of one pod or of all pods of a job side by side.

use std::time::Duration;

use clap::Args;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use tokio::time::{Instant, sleep};

use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::{log_lines, output};

/// How long `--follow` waits for a container to start.
const START_DEADLINE: Duration = Duration::from_mins(2);

/// Prints what containers print
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster logs -f digits-master-0\n  muster logs job/digits --tail 20\n  muster logs digits-worker-1 --previous"
)]
pub(crate) struct Arguments {
    /// A pod, or job/NAME for all pods of a training job
    target: String,
    /// Go on printing until the containers end
    #[arg(long, short)]
    follow: bool,
    /// Container [default: the first]
    #[arg(long, short, value_name = "NAME")]
    container: Option<String>,
    /// The container's run before the last restart
    #[arg(long, short)]
    previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
    /// Put the time in front of each line
    #[arg(long)]
    timestamps: bool,
    /// Only lines of the last seconds
    #[arg(long, value_name = "SECONDS")]
    since: Option<i64>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let names = pod_names(&pods, &arguments.target).await?;
    let prefix = names.len() > 1;
    let mut streams: FuturesUnordered<_> =
        names.iter().map(|name| print_log(&pods, name, &arguments, prefix)).collect();
    while let Some(done) = streams.next().await {
        done?;
    }
    Ok(())
}

/// The pods that a target such as `pod`, `pod/NAME` or `job/NAME` means.
async fn pod_names(pods: &Api<Pod>, target: &str) -> Result<Vec<String>, Error> {
    match target.split_once('/') {
        None | Some(("pod" | "pods" | "po", _)) => {
            Ok(vec![target.rsplit('/').next().unwrap_or(target).to_owned()])
        }
        Some((_, job)) => {
            let selector = format!("{}={job}", muster_trainer_api::label::JOB_NAME);
            let mut found = pods.list(&ListParams::default().labels(&selector)).await?.items;
            if found.is_empty() {
                found = pods.list(&ListParams::default().labels(&format!("job-name={job}"))).await?.items;
            }
            let mut names: Vec<String> = found.into_iter().filter_map(|pod| pod.metadata.name).collect();
            names.sort();
            if names.is_empty() {
                return Err(Error::new(format!("{target} has no pods"))
                    .with_hint(format!("`muster describe {target}` says why")));
            }
            Ok(names)
        }
    }
}

async fn print_log(pods: &Api<Pod>, name: &str, arguments: &Arguments, prefix: bool) -> Result<(), Error> {
    let parameters = LogParams {
        container: arguments.container.clone(),
        follow: arguments.follow,
        previous: arguments.previous,
        tail_lines: arguments.tail,
        timestamps: arguments.timestamps,
        since_seconds: arguments.since,
        ..LogParams::default()
    };
    let deadline = Instant::now() + START_DEADLINE;
    let stream = loop {
        match pods.log_stream(name, &parameters).await {
            Ok(stream) => break stream,
            // The container has not started yet; kubelet and API server answer 400 until then.
            Err(kube::Error::Api(status))
                if status.code == 400 && arguments.follow && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let mut log = stream;
    let read = |error: std::io::Error| Error::from_source("the log broke off", &error);
    while let Some(line) = log_lines::next(&mut log).await.map_err(read)? {
        let line = if prefix { beside_others(name, line) } else { line };
        if !output::stream_bytes(&line)? {
            break;
        }
    }
    Ok(())
}

/// A whole line that says whose it is.
fn beside_others(name: &str, line: Vec<u8>) -> Vec<u8> {
    let mut whole = format!("[{name}] ").into_bytes();
    whole.extend(line);
    if !whole.ends_with(b"\n") {
        whole.push(b'\n');
    }
    whole
}
