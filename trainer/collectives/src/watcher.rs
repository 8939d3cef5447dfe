//! A thread that watches the lifelines of the peers and ends the group the moment one of them dies.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::control::{Control, Failure};

/// The running watcher; ends with its value.
#[derive(Debug)]
pub(crate) struct Watcher {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Watches the lifelines of the given ranks.
    pub(crate) fn start(control: Arc<Control>, lifelines: Vec<(usize, OwnedFd)>) -> io::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new()
            .name("muster-watcher".into())
            .spawn(move || watch(&control, lifelines, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Closing the pipe is the signal to stop.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(control: &Control, mut lifelines: Vec<(usize, OwnedFd)>, stopped: &OwnedFd) {
    loop {
        let mut polled = vec![PollFd::new(stopped, PollFlags::IN)];
        polled.extend(lifelines.iter().map(|(_, lifeline)| PollFd::new(lifeline, PollFlags::IN)));
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot watch the other ranks: a death shows only at the deadline");
                return;
            }
        }
        if !polled[0].revents().is_empty() {
            return;
        }
        let ended: Vec<bool> = polled[1..].iter().map(|entry| !entry.revents().is_empty()).collect();
        drop(polled);
        let mut ended = ended.into_iter();
        lifelines.retain(|(rank, _)| {
            let ended = ended.next().unwrap_or(false);
            if ended && !control.has_departed(*rank) {
                control.mark_ended(*rank);
                control.abort(Failure::Died { rank: *rank });
            }
            !ended
        });
    }
}
