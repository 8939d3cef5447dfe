//! The entry of a training pod: starts its workers with torchrun's environment, and watches over them.
//!
//! [`main`] is the whole: a plan from options, variables and the machine ([`Arguments`]), then processes. Each worker gets
//! a process group and cores of its own, and its memory comes from the NUMA node of those cores by the kernel's default
//! (first touch). Signals go on to the workers; when one fails, the others are stopped, the failure is reported, and the
//! launcher exits as that worker did. No worker outlives the launcher, however that ends. Workers have no standard input.
//!
//! Every node knows from its variables which one it is, or learns it at a rendezvous, where nodes may come and go
//! ([`elastic`]). All nodes must have the same number of workers.

mod arguments;
mod child;
mod elastic;
mod environment;
mod error;
mod lines;
mod machine;
mod memory;
mod output;
mod pinning;
mod plan;
mod program;
mod report;
mod signals;
mod supervisor;
mod sysfs;
mod variables;
mod warden;
mod watch;
mod worker;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use fs_err as fs;

pub use crate::arguments::Arguments;
pub use crate::child::{CHILD_COMMAND, child_main};
pub use crate::error::Error;
pub use crate::program::Error as ProgramError;
pub use crate::world::Error as WorldError;

use crate::output::{Sink, Sinks};
use crate::plan::Plan;
use crate::signals::Signals;
use crate::supervisor::{Outcome, Supervisor};

/// Where kubelets read what the pod's status says of an end.
const TERMINATION_LOG: &str = "/dev/termination-log";
const ERROR_FILE: &str = "TORCHELASTIC_ERROR_FILE";

/// Runs the workers to their end. Must be called by the program's first thread before there are others; the program
/// must call [`child_main`] instead when its first word is [`CHILD_COMMAND`].
pub fn main(arguments: &Arguments) -> ExitCode {
    let sinks = Sinks { stdout: Sink::stdout(), stderr: Sink::stderr() };
    let report = |message: &str| {
        if let Some(file) = termination_log(arguments)
            && let Err(error) = fs::write(&file, message)
        {
            sinks.stderr.note(&format!("cannot leave a report for the pod's status: {error}"));
        }
    };
    let code = match run(arguments, &sinks) {
        Ok(Outcome::Succeeded) => 0,
        Ok(Outcome::Left(signal)) => 128 | signal as u8,
        Ok(Outcome::Failed(failure)) => {
            report(&failure.termination_message());
            if let Some(file) = std::env::var_os(ERROR_FILE).filter(|file| !file.is_empty())
                && let Err(error) = fs::write(PathBuf::from(file), failure.json().to_string())
            {
                sinks.stderr.note(&format!("cannot write the file that {ERROR_FILE} names: {error}"));
            }
            sinks.stderr.note(&failure.text());
            failure.end.exit_code()
        }
        Err(error) => {
            report(&error.to_string());
            sinks.stderr.note(&error.to_string());
            error.exit_code()
        }
    };
    ExitCode::from(code)
}

fn run(arguments: &Arguments, sinks: &Sinks) -> Result<Outcome, Error> {
    // Before everything else, or a signal would end the launcher in between.
    let signals = Signals::block().map_err(Error::Watch)?;
    let plan = Plan::make(arguments)?;
    for remark in &plan.remarks {
        sinks.stderr.note(remark);
    }
    Supervisor::new(arguments, &plan, &signals, sinks).map_err(Error::Watch)?.run()
}

fn termination_log(arguments: &Arguments) -> Option<PathBuf> {
    let usual = || Some(PathBuf::from(TERMINATION_LOG)).filter(|file| file.exists());
    arguments.termination_log.clone().or_else(usual)
}
