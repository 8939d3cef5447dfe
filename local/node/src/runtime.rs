//! The agent's side of the processes: starts pods through the spawner and talks to their init processes.

pub(crate) mod session;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::init::SOCKET;
use crate::protocol::{
    Capabilities, FRAME_LIMIT, InitEvent, InitRequest, Sandbox, SpawnReply, SpawnRequest, receive, send,
};
use crate::sys::descriptor::readable;

/// Beside the socket; only statistics use it.
const PID_FILE: &str = "init.pid";
/// The folder, beside the socket, in which the init notes under each container's name which process it is; only
/// statistics use it.
pub(crate) const CONTAINER_PIDS: &str = "pids";
/// A pod's init answers at once or it is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a pod cannot be started or reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The spawner program does not start.
    #[error("cannot start the spawner `{command}`: {source}")]
    Start {
        /// Its command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The spawner ended.
    #[error("the spawner ended; see the log")]
    Ended,
    /// The spawner refused.
    #[error("{0}")]
    Refused(String),
    /// Talking to a process failed.
    #[error("talk to the pod's init process: {0}")]
    Io(#[from] io::Error),
}

type Answer = Result<(SpawnReply, Vec<OwnedFd>), Error>;

struct Job {
    request: SpawnRequest,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// The connection to the spawner process. A thread carries requests one after the other.
#[derive(Debug)]
pub(crate) struct Spawner {
    jobs: std::sync::mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts `command`, which must end in [`crate::spawner_main`].
    pub(crate) fn start(command: Vec<OsString>) -> Result<Self, Error> {
        let mut connection = Connection::start(&command)?;
        let (jobs, work) = std::sync::mpsc::channel::<Job>();
        std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            for job in work {
                let mut answer = connection.ask(&job.request, &job.descriptors);
                if answer.is_err() {
                    // Someone may have killed the spawner; a new one serves as well.
                    match Connection::start(&command) {
                        Ok(fresh) => {
                            tracing::warn!("the spawner ended; started a new one");
                            connection = fresh;
                            answer = connection.ask(&job.request, &job.descriptors);
                        }
                        Err(error) => answer = Err(error),
                    }
                }
                let _ = job.answer.send(answer);
            }
        })?;
        Ok(Self { jobs })
    }

    async fn ask(&self, request: SpawnRequest, descriptors: Vec<OwnedFd>) -> Answer {
        let (answer, reply) = oneshot::channel();
        self.jobs.send(Job { request, descriptors, answer }).map_err(|_| Error::Ended)?;
        match reply.await.map_err(|_| Error::Ended)?? {
            (SpawnReply::Failed { message }, _) => Err(Error::Refused(message)),
            other => Ok(other),
        }
    }

    /// What this machine allows.
    pub(crate) async fn probe(&self, directory: &Path) -> Result<Capabilities, Error> {
        match self.ask(SpawnRequest::Probe { directory: directory.to_owned() }, Vec::new()).await? {
            (SpawnReply::Probe(capabilities), _) => Ok(capabilities),
            _ => Err(Error::Refused("the spawner gave an answer to another question".to_owned())),
        }
    }

    /// Starts a pod's init.
    pub(crate) async fn spawn(
        &self,
        sandbox: Sandbox,
        network: Option<OwnedFd>,
    ) -> Result<PodProcess, Error> {
        let (ours, theirs) = BlockingStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut descriptors = vec![OwnedFd::from(theirs)];
        descriptors.extend(network);
        let pid_file = sandbox.directory.join(PID_FILE);
        let (reply, mut descriptors) = self.ask(SpawnRequest::Pod(Box::new(sandbox)), descriptors).await?;
        if let SpawnReply::Pod { pid } = reply {
            fs_err::write(pid_file, pid.to_string())?;
        }
        let pidfd = descriptors.pop().ok_or(Error::Ended)?;
        PodProcess::new(ours, pidfd)
    }
}

struct Connection {
    socket: BlockingStream,
    child: std::process::Child,
}

impl Connection {
    fn start(command: &[OsString]) -> Result<Self, Error> {
        let shown = || command.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let failed = |source| Error::Start { command: shown(), source };
        let (program, arguments) =
            command.split_first().ok_or_else(|| failed(io::Error::other("the command is empty")))?;
        let (socket, theirs) = BlockingStream::pair()?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, child })
    }

    fn ask(&mut self, request: &SpawnRequest, descriptors: &[OwnedFd]) -> Answer {
        let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
        send(&self.socket, request, &borrowed)?;
        receive(&self.socket)?.ok_or(Error::Ended)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The spawner ends when its input does.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// A pod's init process, started here or found running.
#[derive(Debug)]
pub(crate) struct PodProcess {
    frames: Framed<UnixStream, LengthDelimitedCodec>,
    pidfd: AsyncFd<OwnedFd>,
}

impl PodProcess {
    fn new(stream: BlockingStream, pidfd: OwnedFd) -> Result<Self, Error> {
        let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_LIMIT).new_codec();
        let frames = Framed::new(UnixStream::from_std(stream)?, codec);
        let pidfd = readable(pidfd)?;
        Ok(Self { frames, pidfd })
    }

    /// Connects to the init of the pod whose folder this is; an error if none runs.
    pub(crate) fn adopt(directory: &Path) -> Result<Self, Error> {
        let folder = fs_err::File::open(directory)?;
        // Through the descriptor, because the path of a socket may have only 107 bytes.
        let stream = BlockingStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
        stream.set_nonblocking(true)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
        let pidfd = pidfd_open(peer.pid, PidfdFlags::NONBLOCK).map_err(io::Error::from)?;
        Self::new(stream, pidfd)
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request: &InitRequest) -> Result<(), Error> {
        let bytes = serde_json::to_vec(request).map_err(io::Error::from)?;
        match timeout(PATIENCE, self.frames.send(bytes::Bytes::from(bytes))).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }

    /// The next event; `None` when the init is gone. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<InitEvent> {
        let frame = self.frames.next().await?.ok()?;
        serde_json::from_slice(&frame).ok()
    }

    /// Ends every process of the pod and waits until they are gone.
    pub(crate) async fn end(mut self) {
        let asked = self.send(&InitRequest::Shutdown).await;
        let gone = timeout(PATIENCE, self.pidfd.readable());
        if asked.is_err() || gone.await.is_err() {
            let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
            if timeout(PATIENCE, self.pidfd.readable()).await.is_err() {
                tracing::warn!("a pod's processes do not end; they may wait for a disk or a device");
            }
        }
    }
}

/// Number of a pod's init process, as the agent noted it beside the socket.
pub(crate) fn init_pid(directory: &Path) -> Option<i32> {
    fs_err::read_to_string(directory.join(PID_FILE)).ok()?.trim().parse().ok()
}

/// Names of a pod's containers by their processes' numbers in the PID namespace of its init, as the init noted them.
pub(crate) fn container_pids(directory: &Path) -> BTreeMap<i32, String> {
    let Ok(entries) = fs_err::read_dir(directory.join(CONTAINER_PIDS)) else { return BTreeMap::new() };
    let read = |entry: fs_err::DirEntry| {
        let number = fs_err::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
        Some((number, entry.file_name().into_string().ok()?))
    };
    entries.flatten().filter_map(read).collect()
}
