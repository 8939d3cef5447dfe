//! What the chores print. A reader that went away is not an error.

use std::io::{self, Write};

/// A line of a chore's result, on standard output.
pub(crate) fn line(text: &str) {
    let _written = writeln!(io::stdout().lock(), "{text}");
}

/// A remark, on standard error.
pub(crate) fn note(text: &str) {
    let _written = writeln!(io::stderr().lock(), "{text}");
}
