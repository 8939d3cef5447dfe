//! Interactive jobs on the command line: waiting for one to start, the shell in it, and why it ended.

mod end;
mod notes;
mod presence;
mod session;
mod signals;
mod start;
mod terminal;

pub(crate) use end::{give_up, why};
pub(crate) use notes::Notes;
pub(crate) use session::{Ended, Session};
pub(crate) use signals::Signals;
pub(crate) use start::Start;
