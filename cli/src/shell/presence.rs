//! The connection over which the keeper of an interactive job hears that its client is there.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use kube::client::UpgradeConnectionError;
use muster_batch_core::job::SCRIPT;
use muster_batch_core::shell;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, Lines};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::Error;

/// How often the client says that it is there.
const BEAT: Duration = Duration::from_secs(10);
/// How long a container may take to run a command when its pod runs already.
const START: Duration = Duration::from_mins(1);
/// Pause before a connection that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a client that leaves waits until the keeper knows.
const FAREWELL: Duration = Duration::from_secs(5);

/// A client that is there.
pub(super) struct Presence<'a> {
    pods: &'a Api<Pod>,
    pod: &'a str,
    connection: Connection,
    /// How often it has said so.
    beats: u64,
}

struct Connection {
    /// Holds the connection open.
    _process: AttachedProcess,
    input: Box<dyn AsyncWrite + Send + Unpin>,
    output: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    /// How long the job may go on.
    left: Option<Duration>,
}

impl fmt::Debug for Presence<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Presence").field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl<'a> Presence<'a> {
    /// Comes to the keeper in a pod.
    ///
    /// # Errors
    /// Commands cannot be run in it.
    pub(super) async fn begin(pods: &'a Api<Pod>, pod: &'a str) -> Result<Self, Error> {
        let deadline = Instant::now() + START;
        let connection = connect_until(pods, pod, deadline).await?;
        Ok(Self { pods, pod, connection, beats: 0 })
    }

    /// How long the job may go on, if its time is limited.
    pub(super) fn left(&self) -> Option<Duration> {
        self.connection.left
    }

    /// Says again and again that the client is there, over another connection when one breaks; ends when nothing answers
    /// any more.
    pub(super) async fn keep(&mut self) -> Error {
        loop {
            let heard = self.speak().await;
            match connect_until(self.pods, self.pod, heard + shell::PATIENCE).await {
                Ok(connection) => self.connection = connection,
                Err(error) => return error,
            }
        }
    }

    /// Speaks as long as there are answers; when the last came.
    async fn speak(&mut self) -> Instant {
        let mut heard = Instant::now();
        loop {
            self.beats += 1;
            let word = format!("{}\n", self.beats);
            let Connection { input, output, .. } = &mut self.connection;
            let exchange = async {
                input.write_all(word.as_bytes()).await?;
                output.next_line().await
            };
            match timeout_at(heard + shell::PATIENCE, exchange).await {
                Ok(Ok(Some(_))) => heard = Instant::now(),
                _ => return heard,
            }
            sleep(BEAT).await;
        }
    }

    /// Says goodbye, and waits until that is heard.
    pub(super) async fn leave(mut self) {
        let Connection { input, output, .. } = &mut self.connection;
        let farewell = async {
            let _ = input.shutdown().await;
            while let Ok(Some(_)) = output.next_line().await {}
        };
        // Who does not hear of it will miss the client.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

async fn connect_until(pods: &Api<Pod>, pod: &str, deadline: Instant) -> Result<Connection, Error> {
    loop {
        let failed = match timeout_at(deadline, connect(pods, pod)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(Failure::Refused(error))) => return Err(error),
            Ok(Err(Failure::Passing(error))) => error,
            Err(_) => Error::new(format!("no command starts in pod {pod}")),
        };
        if Instant::now() + RETRY >= deadline {
            return Err(failed);
        }
        sleep(RETRY).await;
    }
}

/// Why a connection has failed.
enum Failure {
    /// The next one will, too.
    Refused(Error),
    /// The next one may not.
    Passing(Error),
}

async fn connect(pods: &Api<Pod>, pod: &str) -> Result<Connection, Failure> {
    let parameters = AttachParams::default().container(SCRIPT).stdin(true).stdout(true).stderr(false);
    let mut process = pods.exec(pod, shell::watch(), &parameters).await.map_err(failure)?;
    let (Some(input), Some(output)) = (process.stdin(), process.stdout()) else {
        return Err(Failure::Passing(Error::new("a command without input or output")));
    };
    let output: Box<dyn AsyncRead + Send + Unpin> = Box::new(output);
    let mut output = BufReader::new(output).lines();
    let first = output.next_line().await.ok().flatten().unwrap_or_default();
    let left = shell::left(&first).map_err(|line| {
        Failure::Passing(Error::new(format!(
            "pod {pod} says `{line}` where it should be ready for its shell"
        )))
    })?;
    Ok(Connection { _process: process, input: Box::new(input), output, left })
}

fn failure(error: kube::Error) -> Failure {
    match error {
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code))
            if matches!(code.as_u16(), 401 | 403) =>
        {
            Failure::Refused(
                Error::new("the server refused to run commands in pods of this namespace")
                    .with_hint("a shell takes the rights to get pods, and to get and create pods/exec"),
            )
        }
        error => Failure::Passing(error.into()),
    }
}
