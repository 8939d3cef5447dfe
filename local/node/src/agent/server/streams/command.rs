//! Runs a command in a container for a client.
//!
//! A client that vanishes hangs up on its command: on a terminal the kernel does it, without one the pod's init sends
//! SIGHUP to the command's group (containerd lets such a command run on, with its input closed). A client that closes its
//! connection in good order while the input is open has ended the input, as v4 has no other way to say it: the command
//! runs to its end, and what it prints is dropped.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::descriptor::Descriptor;
use crate::init::command::set_size;
use crate::protocol::session::{CommandStreams, SessionEvent, SessionRequest, WindowSize};
use crate::runtime::session::SessionConnection;
use crate::streams::channel::{FromClient, ToClient};
use crate::streams::query::CommandOptions;
use crate::streams::status;

/// How long a client may take to say how large its terminal is before the command starts without knowing.
const SIZE_PATIENCE: Duration = Duration::from_millis(50);
/// The pod's init answers at once or it is stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// More than a pipe or terminal holds: what a command that ended can have left in it.
const REST: usize = 1 << 20;
/// The character that ends the input of a terminal.
const END_OF_INPUT: u8 = 4;

/// Why a stream ended without a result of its command.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client is gone; nobody is to be told.
    HungUp,
    /// The reason for the client.
    Failed(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a client wants, and where.
#[derive(Debug)]
pub(super) struct CommandStart<'a> {
    /// The pod's folder.
    pub(super) directory: &'a Path,
    /// The container.
    pub(super) container: String,
    /// What the client asked for.
    pub(super) options: CommandOptions,
}

/// Runs the command and tells the client how it ended; `over` ends it with the agent.
pub(super) async fn run(start: CommandStart<'_>, mut client: Client, over: &CancellationToken) {
    let ran = tokio::select! {
        ran = try_run(start, &mut client) => ran,
        () = over.cancelled() => Err(Broken::Failed("the node's agent is stopping".to_owned())),
    };
    let status = match ran {
        Ok(code) => status::exited(code),
        Err(Broken::Failed(why)) => status::failed(&format!("error executing command in container: {why}")),
        Err(Broken::HungUp) => return,
    };
    let _ = client.to.send(ToClient::Status(status)).await;
}

/// The client's side of the command's input and output.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Its input.
    pub(super) input: Option<Descriptor>,
    /// What it prints.
    pub(super) output: Option<Descriptor>,
    /// What it prints as an error.
    pub(super) error: Option<Descriptor>,
    /// Whose size clients set; the input and output are the same then.
    pub(super) terminal: Option<Descriptor>,
}

async fn try_run(start: CommandStart<'_>, client: &mut Client) -> Result<i32, Broken> {
    let mut first = None;
    let (mut connection, ends) = if start.options.terminal {
        let size = first_size(&mut client.from, &mut first).await?;
        on_terminal(&start, size).await?
    } else {
        on_pipes(&start)?
    };
    // A terminal reads a character as the end of its input.
    let at_end = |terminal: Option<Descriptor>| async move {
        if let Some(terminal) = terminal {
            let _ = terminal.write(&[END_OF_INPUT]).await;
        }
    };
    let terminal = ends.terminal.clone();
    let ended = async { ended_with(connection.next().await?) };
    carry(client, first, ends, move || at_end(terminal.clone()), ended).await
}

/// Carries input and output until the command has `ended` and all that it printed is said; `at_end` is called when the
/// client's input ends.
pub(super) async fn carry<AtEnd: Future<Output = ()>>(
    client: &mut Client,
    first: Option<FromClient>,
    ends: Ends,
    at_end: impl FnOnce() -> AtEnd,
    ended: impl Future<Output = Result<i32, Broken>>,
) -> Result<i32, Broken> {
    let Ends { input, output, error, terminal } = ends;
    let over = CancellationToken::new();
    let fed = feed(&mut client.from, first, input, terminal, at_end);
    let shown = async {
        tokio::join!(
            show(output, &over, &client.to, ToClient::Output),
            show(error, &over, &client.to, ToClient::Error)
        )
    };
    tokio::pin!(fed, shown, ended);
    let (mut feeding, mut showing) = (true, true);
    let code = loop {
        tokio::select! {
            // What a client said before it went is the command's, as far as the command takes it.
            biased;
            ended = &mut ended => break ended?,
            left = &mut fed, if feeding => match left {
                Left::HungUp => return Err(Broken::HungUp),
                Left::InputAlone => feeding = false,
            },
            _ = &mut shown, if showing => showing = false,
            // Heard also while the command leaves its input unread.
            () = client.to.closed(), if feeding => return Err(Broken::HungUp),
        }
    };
    over.cancel();
    if showing {
        shown.await;
    }
    Ok(code)
}

pub(super) fn ended_with(event: Option<(SessionEvent, Option<OwnedFd>)>) -> Result<i32, Broken> {
    match event {
        Some((SessionEvent::Ended { code }, _)) => Ok(code),
        Some((SessionEvent::Failed { message }, _)) => Err(Broken::Failed(message)),
        Some((SessionEvent::Ready { .. }, _)) => {
            Err(Broken::Failed("the pod's init gave an answer to another question".to_owned()))
        }
        None => Err(Broken::Failed("the pod ended, and the command with it".to_owned())),
    }
}

/// Waits a moment for the size of the client's terminal, which comes first from those that say it.
async fn first_size(
    from: &mut mpsc::Receiver<FromClient>,
    other: &mut Option<FromClient>,
) -> Result<WindowSize, Broken> {
    match timeout(SIZE_PATIENCE, from.recv()).await {
        Ok(Some(FromClient::Resize(size))) => Ok(size),
        Ok(None) => Err(Broken::HungUp),
        Ok(said) => {
            *other = said;
            Ok(WindowSize::default())
        }
        Err(_) => Ok(WindowSize::default()),
    }
}

fn request(start: &CommandStart<'_>, streams: CommandStreams) -> SessionRequest {
    let (container, argv) = (start.container.clone(), start.options.argv.clone());
    SessionRequest::Command { container, argv, streams }
}

pub(super) fn open(
    directory: &Path,
    request: SessionRequest,
    descriptors: &[OwnedFd],
) -> Result<SessionConnection, Broken> {
    let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
    SessionConnection::open(directory, request, &borrowed)
        .map_err(|error| Broken::Failed(format!("the pod does not run: {error}")))
}

async fn on_terminal(
    start: &CommandStart<'_>,
    size: WindowSize,
) -> Result<(SessionConnection, Ends), Broken> {
    let request = request(start, CommandStreams::Terminal(size));
    let mut connection = open(start.directory, request, &[])?;
    let (_, terminal) = ready(&mut connection).await?;
    let terminal = terminal.ok_or_else(|| Broken::Failed("there is no terminal".to_owned()))?;
    let terminal = Descriptor::terminal(terminal)?;
    let input = start.options.input.then(|| terminal.clone());
    Ok((connection, Ends { input, output: Some(terminal.clone()), error: None, terminal: Some(terminal) }))
}

/// Waits until what was asked for is there: whether it is a terminal, and what came along.
pub(super) async fn ready(connection: &mut SessionConnection) -> Result<(bool, Option<OwnedFd>), Broken> {
    let answer = timeout(PATIENCE, connection.next()).await;
    match answer.map_err(|_| Broken::Failed("the pod's init does not answer".to_owned()))?? {
        Some((SessionEvent::Ready { terminal }, descriptor)) => Ok((terminal, descriptor)),
        other => Err(ended_with(other).err().unwrap_or(Broken::Failed("it ended at once".to_owned()))),
    }
}

fn on_pipes(start: &CommandStart<'_>) -> Result<(SessionConnection, Ends), Broken> {
    let CommandOptions { input, output, error, .. } = start.options;
    let mut theirs: Vec<OwnedFd> = Vec::new();
    let mut pipe = |wanted: bool, reads: bool| -> io::Result<Option<Descriptor>> {
        if !wanted {
            return Ok(None);
        }
        let (reader, writer) = io::pipe()?;
        if reads {
            theirs.push(reader.into());
            Descriptor::writer(writer).map(Some)
        } else {
            theirs.push(writer.into());
            Descriptor::reader(reader).map(Some)
        }
    };
    let ends = Ends {
        input: pipe(input, true)?,
        output: pipe(output, false)?,
        error: pipe(error, false)?,
        terminal: None,
    };
    let request = request(start, CommandStreams::Pipes { input, output, error });
    Ok((open(start.directory, request, &theirs)?, ends))
}

/// How a client left.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// The command is hung up on.
    HungUp,
    /// Its input has ended, and it may go on.
    InputAlone,
}

/// Gives the command what the client says, until the client leaves.
async fn feed<AtEnd: Future<Output = ()>>(
    from: &mut mpsc::Receiver<FromClient>,
    first: Option<FromClient>,
    mut input: Option<Descriptor>,
    terminal: Option<Descriptor>,
    at_end: impl FnOnce() -> AtEnd,
) -> Left {
    let mut at_end = Some(at_end);
    let mut next = first;
    loop {
        let said = match next.take() {
            Some(said) => Some(said),
            None => from.recv().await,
        };
        match said {
            Some(FromClient::Input(bytes)) => {
                // A command that closed its input does not want it.
                if let Some(open) = &input
                    && open.write(&bytes).await.is_err()
                {
                    input = None;
                }
            }
            Some(FromClient::InputEnd) => {
                if input.take().is_some()
                    && let Some(at_end) = at_end.take()
                {
                    at_end().await;
                }
            }
            Some(FromClient::Resize(size)) => {
                if let Some(terminal) = &terminal {
                    let _ = set_size(terminal.inner(), size);
                }
            }
            Some(FromClient::Left) if input.is_some() && terminal.is_none() => return Left::InputAlone,
            Some(FromClient::Left) | None => return Left::HungUp,
        }
    }
}

/// Tells the client what the command prints, until its end, or until the command has `ended` and nothing is left.
async fn show(
    output: Option<Descriptor>,
    ended: &CancellationToken,
    to: &mpsc::Sender<ToClient>,
    said: fn(Bytes) -> ToClient,
) {
    let Some(output) = output else { return };
    loop {
        let bytes = tokio::select! {
            biased;
            () = ended.cancelled() => break,
            read = output.read() => read.unwrap_or_default(),
        };
        if bytes.is_empty() {
            return;
        }
        // A client that is gone hears nothing, but the command must not wait for it.
        let _ = to.send(said(bytes)).await;
    }
    // Others may still hold the pipe and write into it: only what is there now is the command's.
    let mut rest = 0;
    while rest < REST
        && let Some(bytes) = output.read_now()
    {
        rest += bytes.len();
        let _ = to.send(said(bytes)).await;
    }
}
