//! Connects a client with the program of a container.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::command::{Broken, CommandStart, Ends, carry, ended_with, open, ready};
use super::descriptor::Descriptor;
use crate::protocol::session::SessionRequest;
use crate::streams::channel::ToClient;
use crate::streams::query::CommandOptions;
use crate::streams::status;

/// Shows the client what the program prints, from now on, and gives the program what the client writes, until the
/// program ends or the client leaves, or takes nothing for so long as `stuck`; `over` ends it with the agent.
pub(super) async fn run(
    start: CommandStart<'_>,
    mut client: Client,
    stuck: Duration,
    over: &CancellationToken,
) {
    let ran = tokio::select! {
        ran = try_run(start, stuck, &mut client) => ran,
        () = over.cancelled() => Err(Broken::Failed("the node's agent is stopping".to_owned())),
    };
    let status = match ran {
        // Not how the program ended: clients find that in the pod's status.
        Ok(_) => status::success(),
        Err(Broken::Failed(why)) => {
            tracing::debug!(%why, "an attached client is let go");
            status::failed(&format!("error attaching to container: {why}"))
        }
        Err(Broken::HungUp) => return,
    };
    let _ = client.to.send(ToClient::Status(status)).await;
}

async fn try_run(start: CommandStart<'_>, stuck: Duration, client: &mut Client) -> Result<i32, Broken> {
    let CommandStart { directory, container, options } = start;
    let CommandOptions { input, output, error, .. } = options;
    let mut theirs: Vec<OwnedFd> = Vec::new();
    let mut pipe = |wanted: bool| -> io::Result<Option<Descriptor>> {
        if !wanted {
            return Ok(None);
        }
        let (reader, writer) = io::pipe()?;
        theirs.push(writer.into());
        Descriptor::reader(reader).map(Some)
    };
    let (output_end, error_end) = (pipe(output)?, pipe(error)?);
    let request = SessionRequest::Attach { container, input, output, error, stuck };
    let mut connection = open(directory, request, &theirs)?;
    drop(theirs);
    let (is_terminal, descriptor) = ready(&mut connection).await?;
    let mut ends = Ends { output: output_end, error: error_end, ..Ends::default() };
    match descriptor {
        Some(descriptor) if is_terminal => {
            let terminal = Descriptor::terminal(descriptor)?;
            ends.input = input.then(|| terminal.clone());
            ends.terminal = Some(terminal);
        }
        Some(descriptor) => ends.input = Some(Descriptor::writer(descriptor)?),
        None => {}
    }
    // The pod's init knows whether the program's input ends with this client's.
    let input_ended = Notify::new();
    let at_end = || {
        input_ended.notify_one();
        std::future::ready(())
    };
    let ended = async {
        loop {
            tokio::select! {
                event = connection.next() => return ended_with(event?),
                () = input_ended.notified() => {
                    connection.end_input();
                }
            }
        }
    };
    carry(client, None, ends, at_end, ended).await
}
