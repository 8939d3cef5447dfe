//! The one binary: every role of Muster is a subcommand.

mod agent;
mod api;
mod arguments;
mod batch;
mod cluster;
mod commands;
mod connect;
mod dashboard;
mod error;
mod follow;
mod gang_text;
mod home;
mod hypothetical;
mod install;
mod kinds;
mod locate;
mod log_lines;
mod manifest;
mod output;
mod remote;
mod rendezvous;
mod roles;
mod runtimes;
mod shell;
mod supposition;
mod targets;
mod topology;
mod waiting;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::output::Colour;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the node's spawner is started as; it must run before any thread exists.
pub(crate) const SPAWNER_COMMAND: &str = "node-spawner";

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    match Path::new(&program).file_name().and_then(OsStr::to_str) {
        Some("muster-train") => return commands::train::run(std::env::args_os()),
        Some("nslookup") => return commands::nslookup::run(words),
        _ => {}
    }
    if Path::new(&program).file_name() == Some(OsStr::new(commands::mpi_agent::PROGRAM)) {
        return with_runtime(Arguments::parse_from(commands::mpi_agent::called(words)).command);
    }
    match words.next().as_deref().and_then(OsStr::to_str) {
        Some(SPAWNER_COMMAND) => return muster_node::spawner_main(),
        Some(muster_launcher::CHILD_COMMAND) => return muster_launcher::child_main(words),
        // Its words may be in a file, which must be read before they are understood.
        Some("train") => return commands::train::run(std::iter::once("muster train".into()).chain(words)),
        _ => {}
    }
    match Arguments::parse().command {
        Command::Train(arguments) => commands::train::finish(muster_trainer_runtime::run(&arguments)),
        Command::ExecWorker(arguments) => muster_launcher::main(&arguments),
        command => with_runtime(command),
    }
}

/// Runs a command on the asynchronous runtime; its exit code is the process's.
fn with_runtime(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error::Error::from_source("cannot start", &error)),
    };
    // Otherwise what is free goes back to the system only while somebody allocates. Without the thread all else works.
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
    let result = runtime.block_on(command.run());
    // A blocking read of standard input must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn fail(error: &error::Error) -> ExitCode {
    let colours = output::colours_on_stderr();
    let text = error.to_string();
    let (message, hint) =
        text.split_once("\nhint: ").map_or((text.as_str(), None), |(message, hint)| (message, Some(hint)));
    output::note(&format!("{} {message}", output::paint("error:", Colour::Red, colours)));
    if let Some(hint) = hint {
        output::note(&format!("{} {hint}", output::paint("hint:", Colour::Green, colours)));
    }
    error.exit_code()
}
