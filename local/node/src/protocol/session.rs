//! Sessions: commands that clients run in a container, clients attached to its program, sockets of its network.
//!
//! Each has a connection of its own to the pod's init. Bytes do not travel over it: pipes, terminals and sockets do.
//! When the agent closes it, or dies, the session is over.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FRAME_LIMIT, decode, receive_chunk};

/// What a session is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SessionRequest {
    /// Runs a command in a running container, as its program runs: namespaces, control group, user, environment.
    Command {
        /// Which container.
        container: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Where its input and output go.
        streams: CommandStreams,
    },
    /// Connects with the input and output of a container's own program. Descriptors: the writing ends of pipes for
    /// output and error, as far as asked for.
    Attach {
        /// Which container.
        container: String,
        /// The writing end of the program's input, or its terminal, is wanted.
        input: bool,
        /// Standard output is wanted.
        output: bool,
        /// Standard error is wanted.
        error: bool,
        /// How long the client may take nothing before the program no longer waits for it.
        stuck: Duration,
    },
    /// A TCP socket of the pod's network that is not connected yet.
    Socket {
        /// For which protocol.
        family: Family,
    },
}

/// Where a command's input and output go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CommandStreams {
    /// A new terminal, whose other side comes back with [`SessionEvent::Ready`].
    Terminal(WindowSize),
    /// Pipes that came along as descriptors, in this order; `/dev/null` for the others.
    Pipes {
        /// Standard input.
        input: bool,
        /// Standard output.
        output: bool,
        /// Standard error.
        error: bool,
    },
}

/// Size of a terminal in characters; zeros when nobody said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WindowSize {
    /// Characters in a line.
    pub(crate) columns: u16,
    /// Lines.
    pub(crate) rows: u16,
}

/// Which internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// From the pod's init over a session's connection.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SessionEvent {
    /// What was asked for is there. A descriptor comes along: the terminal of a command, the input of a program
    /// attached to if it has one, a socket.
    Ready {
        /// Whether the descriptor is a terminal.
        terminal: bool,
    },
    /// The command, or the program attached to, ended.
    Ended {
        /// Exit code, 128+n for signals.
        code: i32,
    },
    /// It cannot be.
    Failed {
        /// Why.
        message: String,
    },
}

/// Frames of a connection on which descriptors may come along with each.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Reads once; `false` when the other side is gone. Nothing there is an error of its kind on a socket that does
    /// not wait.
    pub(crate) fn read(&mut self, socket: impl AsFd) -> io::Result<bool> {
        receive_chunk(socket, &mut self.buffer, &mut self.descriptors, 8 << 10).map(|count| count > 0)
    }

    /// The next whole frame.
    pub(crate) fn next<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        if self.buffer.len() > FRAME_LIMIT + 4 {
            return Err(io::Error::other("the other side sends more than one frame"));
        }
        decode(&mut self.buffer)
    }

    /// The descriptors that came so far, in order.
    pub(crate) fn take_descriptors(&mut self) -> VecDeque<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// What was read beyond the last frame.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        self.buffer
    }
}
