//! An interactive job: one whose script, the keeper, waits beside a shell that a client runs in its pod by `exec`.
//!
//! The pod needs nothing but `sh`, and what holds it is in it alone: the job ends with the shell, and also when its client is
//! gone without a word, whatever becomes of processes that `exec` has started, in which container runtimes differ. The
//! client has two connections: in one runs the shell, over the other it says again and again that it is there.

use std::time::Duration;

/// The script of an interactive job.
pub const KEEPER: &str = include_str!("shell/keep.sh");
const WATCH: &str = include_str!("shell/watch.sh");
const SESSION: &str = include_str!("shell/session.sh");

/// How long the keeper waits for a first or another word of the client.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// How long it waits for a client whose connection has ended, or that has not yet heard that the shell has.
pub const GRACE: Duration = Duration::from_secs(20);

/// The command that hears the client: each line that is written to it comes back. Its first line is for [`left`].
pub fn watch() -> Vec<String> {
    ["/bin/sh", "-c", WATCH].map(str::to_owned).to_vec()
}

/// The command that becomes the shell, or what is to run in its place; `terminal` is the kind of the client's
/// terminal, if the command runs on one.
pub fn session(terminal: Option<&str>, command: &[String]) -> Vec<String> {
    let words = ["/bin/sh", "-c", SESSION, "muster-shell", terminal.unwrap_or_default()].map(str::to_owned);
    words.into_iter().chain(command.iter().cloned()).collect()
}

/// What the first line of [`watch`] says of the time that the job has left, if its time is limited.
///
/// # Errors
/// The line, if it is another.
pub fn left(line: &str) -> Result<Option<Duration>, &str> {
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["ready"] => Ok(None),
        ["ready", seconds] => {
            let seconds: i64 = seconds.parse().map_err(|_| line)?;
            Ok(Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
        }
        _ => Err(line),
    }
}

#[cfg(test)]
mod tests;
