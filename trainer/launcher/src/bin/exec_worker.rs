//! The launcher as a program of its own, for tests and for images that need no more than it.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "muster-exec-worker", version)]
struct Program {
    #[command(flatten)]
    arguments: muster_launcher::Arguments,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == muster_launcher::CHILD_COMMAND) {
        return muster_launcher::child_main(words);
    }
    muster_launcher::main(&Program::parse().arguments)
}
