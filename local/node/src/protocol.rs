//! What the agent, the spawner and the init process of a pod say to each other: JSON in frames with a length.

pub(crate) mod session;

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No frame is larger: arguments and environment of one container fit many times.
pub(crate) const FRAME_LIMIT: usize = 8 << 20;
/// At most this many descriptors travel with one frame.
const DESCRIPTOR_LIMIT: usize = 4;

/// From the agent to the spawner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SpawnRequest {
    /// Starts the init process of a pod. Descriptors: its connection, then its network namespace if it has one.
    Pod(Box<Sandbox>),
    /// Tries out in a throw-away process what this machine allows.
    Probe {
        /// A folder for the trial mount.
        directory: PathBuf,
    },
}

/// From the spawner to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SpawnReply {
    /// The process number of a pod's init in the agent's PID namespace; its pidfd comes along.
    Pod {
        /// The process number.
        pid: i32,
    },
    /// What the machine allows.
    Probe(Capabilities),
    /// The request failed.
    Failed {
        /// Why.
        message: String,
    },
}

/// What the machine allows, each with the reason if not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capabilities {
    /// PID, mount, UTS, IPC and network namespaces.
    pub(crate) namespaces: Result<(), String>,
    /// An overlay on top of `/`.
    pub(crate) overlay: Result<(), String>,
    /// What an ordinary user may have: PID, mount, UTS and IPC namespaces inside a user namespace.
    pub(crate) user: Result<(), String>,
}

/// The frame that the containers of one pod share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    /// The pod's folder; holds `init.sock`.
    pub(crate) directory: PathBuf,
    /// Host name of the pod; `None` keeps the machine's.
    pub(crate) hostname: Option<String>,
    /// Whether the pod gets namespaces of its own.
    pub(crate) isolated: bool,
    /// Whether its namespaces are inside a user namespace, in which the agent's user is root.
    pub(crate) user: bool,
    /// Whether containers may use an overlay as their root.
    pub(crate) overlay: bool,
    /// Whether the containers see each other's processes.
    pub(crate) share_processes: bool,
    /// Volumes in memory: folder and size limit in bytes.
    pub(crate) memory_volumes: Vec<(PathBuf, Option<u64>)>,
}

/// From the agent to a pod's init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitRequest {
    /// Starts a container.
    Start(Box<ContainerStart>),
    /// Sends a signal to a container's main process.
    Signal {
        /// Which container.
        container: String,
        /// The number of the signal.
        signal: i32,
    },
    /// Ends all processes of a container at once.
    Kill {
        /// Which container.
        container: String,
    },
    /// Runs a command beside a running container (probes, hooks).
    Exec(ExecStart),
    /// Makes this connection a session; nothing else may follow on it.
    Session(session::SessionRequest),
    /// Asks for `InitEvent::State`.
    State,
    /// Ends the pod: every process of it dies.
    Shutdown,
}

/// One container to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerStart {
    /// Name within the pod.
    pub(crate) name: String,
    /// How often it was started before.
    pub(crate) attempt: u32,
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Working folder.
    pub(crate) working_directory: Option<String>,
    /// Whom the process runs as.
    pub(crate) user: User,
    /// Folder that becomes `/`; `/` is the machine's own root.
    pub(crate) root: PathBuf,
    /// The container's own folder (overlay layers).
    pub(crate) directory: PathBuf,
    /// What is bound where.
    pub(crate) mounts: Vec<BindMount>,
    /// The log file.
    pub(crate) log: PathBuf,
    /// `tasks` or `cgroup.procs` files to join.
    pub(crate) cgroups: Vec<PathBuf>,
    /// Limit of private memory in bytes per process where no cgroup holds the memory.
    pub(crate) data_limit: Option<u64>,
    /// Device files besides the usual ones, e.g. `/dev/nvidia0`.
    pub(crate) devices: Vec<PathBuf>,
    /// The root is read-only.
    pub(crate) read_only_root: bool,
    /// What standard input is.
    #[serde(default)]
    pub(crate) input: ProgramInput,
    /// Input and output are a terminal.
    #[serde(default)]
    pub(crate) terminal: bool,
}

/// What the standard input of a container's program is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProgramInput {
    /// `/dev/null`
    #[default]
    Nothing,
    /// What clients that attach write, one after the other.
    Clients,
    /// What the first client writes that attaches; it ends with that one's.
    FirstClient,
}

/// Whom a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// User number; `None` keeps the agent's.
    pub(crate) uid: Option<u32>,
    /// Group number.
    pub(crate) gid: Option<u32>,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
}

/// A file or folder of the machine seen at a path of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BindMount {
    /// On the machine.
    pub(crate) source: PathBuf,
    /// Path below `source` that must not lead out of it (`subPath`).
    pub(crate) sub_path: Option<PathBuf>,
    /// In the container.
    pub(crate) target: PathBuf,
    /// Cannot be written.
    pub(crate) read_only: bool,
}

/// A command beside a running container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecStart {
    /// Chosen by the agent, comes back in `ExecDone`.
    pub(crate) id: u64,
    /// Which container.
    pub(crate) container: String,
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Killed after this many milliseconds.
    pub(crate) timeout_milliseconds: u64,
}

/// From a pod's init to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitEvent {
    /// The program runs.
    Started {
        /// Which container.
        container: String,
        /// Which start of it.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// A container ended, or could not start.
    Exited(ContainerExit),
    /// A command beside a container ended.
    ExecDone {
        /// The agent's number for it.
        id: u64,
        /// Exit code, 128+n for signals; an error text if it could not run or took too long.
        result: Result<i32, String>,
        /// The first kilobytes it printed.
        output: String,
    },
    /// Every container so far (answer to `State`).
    State(Vec<ContainerState>),
}

/// How a container ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerExit {
    /// Which container.
    pub(crate) container: String,
    /// Which start of it.
    pub(crate) attempt: u32,
    /// Exit code, 128+n for signals.
    pub(crate) code: i32,
    /// Why it could not start.
    pub(crate) start_failure: Option<String>,
    /// When the program started; `None` if it never did.
    pub(crate) started: Option<Timestamp>,
    /// When it ended.
    pub(crate) finished: Timestamp,
}

/// What a pod's init knows of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ContainerState {
    /// Runs, or is about to.
    Running {
        /// Which container.
        container: String,
        /// Which start of it.
        attempt: u32,
        /// When the program started.
        started: Option<Timestamp>,
    },
    /// Ended.
    Exited(ContainerExit),
}

/// One frame as bytes.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > FRAME_LIMIT {
        return Err(io::Error::other(format!("message of {length} bytes is larger than {FRAME_LIMIT}")));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// Takes the first whole frame off `buffer`.
pub(crate) fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(header) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*header) as usize;
    if length > FRAME_LIMIT {
        return Err(io::Error::other(format!("frame of {length} bytes is larger than {FRAME_LIMIT}")));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[4..4 + length])?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

/// Sends a frame with descriptors beside its first byte; waits until it is out.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let sent = sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut rest = &bytes[sent..];
    while !rest.is_empty() {
        let sent = rustix::net::send(&socket, rest, SendFlags::NOSIGNAL)?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Waits for a frame and the descriptors that came with it; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = Vec::new();
    let mut descriptors = VecDeque::new();
    loop {
        if let Some(message) = decode(&mut buffer)? {
            return Ok(Some((message, descriptors.into())));
        }
        let wanted = match buffer.first_chunk::<4>() {
            None => 4 - buffer.len(),
            Some(header) => 4 + u32::from_be_bytes(*header) as usize - buffer.len(),
        };
        if receive_chunk(&socket, &mut buffer, &mut descriptors, wanted.min(64 << 10))? == 0 {
            return Ok(None);
        }
    }
}

/// Reads once, at most `limit` bytes, and the descriptors beside them; how many bytes came.
fn receive_chunk(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    descriptors: &mut VecDeque<OwnedFd>,
    limit: usize,
) -> io::Result<usize> {
    let mut chunk = vec![0; limit];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(&socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            descriptors.extend(list);
        }
    }
    buffer.extend_from_slice(&chunk[..received.bytes]);
    Ok(received.bytes)
}

/// Reads what is there without waiting; `false` when the other side is gone.
pub(crate) fn read_available(mut from: impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 16 << 10];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes one frame.
pub(crate) fn write<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_with_its_descriptors() {
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        let request = SpawnRequest::Probe { directory: PathBuf::from("x".repeat(200_000)) };
        let sender = std::thread::spawn(move || {
            send(&left, &request, &[left.as_fd()]).unwrap();
        });
        let (message, descriptors) = receive::<SpawnRequest>(&right).unwrap().unwrap();
        sender.join().unwrap();
        assert!(
            matches!(message, SpawnRequest::Probe { directory } if directory.as_os_str().len() == 200_000)
        );
        assert_eq!(descriptors.len(), 1);
        drop(descriptors);
        assert!(receive::<SpawnRequest>(&right).unwrap().is_none(), "the other side is gone");
    }

    #[test]
    fn a_frame_too_large_is_refused_before_it_is_read() {
        let mut buffer = u32::MAX.to_be_bytes().to_vec();
        assert!(decode::<SpawnReply>(&mut buffer).is_err());
    }
}
