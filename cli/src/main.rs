//! The one binary: every role is a subcommand.

fn main() {}
