//! The client of a stream, whatever protocol carries it.

use tokio::sync::mpsc;

use crate::streams::channel::{FromClient, ToClient};

/// Messages under way in either direction: what is read ahead of a slow command or a slow client.
const UNDER_WAY: usize = 4;

/// What the side that runs the command has of the client. When the client vanishes `from` ends and `to` is closed.
#[derive(Debug)]
pub(super) struct Client {
    /// What it says.
    pub(super) from: mpsc::Receiver<FromClient>,
    /// What it is told; a `Status` is the last.
    pub(super) to: mpsc::Sender<ToClient>,
}

/// What the side that speaks the client's protocol has of the command.
#[derive(Debug)]
pub(super) struct Command {
    /// What the client says.
    pub(super) to: mpsc::Sender<FromClient>,
    /// What the client is told.
    pub(super) from: mpsc::Receiver<ToClient>,
}

/// Both sides of a new stream.
pub(super) fn pair() -> (Client, Command) {
    let (from_client, from) = mpsc::channel(UNDER_WAY);
    let (to, to_client) = mpsc::channel(UNDER_WAY);
    (Client { from, to }, Command { to: from_client, from: to_client })
}
