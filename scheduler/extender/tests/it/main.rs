//! The extender as kube-scheduler meets it: over a socket.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod gangs;
mod hostile;
mod recorded;
mod support;
mod tls;
