//! Between the launcher and a worker: the launcher's own program, started once more, which binds itself to its cores and
//! to the life of the launcher, and then becomes the worker.
//!
//! Both must be done by the process itself, after the fork; a program of its own can do it without unsafe code.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{signals, warden};

/// The first word by which the launcher starts its own program; the rest is for [`child_main`].
pub const CHILD_COMMAND: &str = "exec-worker-child";

/// Stands for no cores.
const ANY_CORE: &str = "-";

/// The words for [`child_main`] that make `command` a worker of this process on `cpus`; on any if there are none.
pub(crate) fn words(cpus: &[usize], command: &[OsString]) -> Vec<OsString> {
    let list: Vec<_> = cpus.iter().map(usize::to_string).collect();
    let cpus = if list.is_empty() { ANY_CORE.to_owned() } else { list.join(",") };
    let own = [std::process::id().to_string(), cpus];
    [CHILD_COMMAND.into()].into_iter().chain(own.map(OsString::from)).chain(command.iter().cloned()).collect()
}

/// Becomes a worker of the launcher that started this process, or is its warden. Of a worker, the words are the
/// launcher's process, the processors, the command and its arguments; this returns only when that failed, with the exit
/// code that shells have for it.
pub fn child_main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let mut word = || words.next().and_then(|word| word.into_string().ok());
    let first = word();
    if first.as_deref() == Some(warden::WARDEN_WORD) {
        return warden::run(words);
    }
    let (Some(launcher), Some(cpus)) = (first.and_then(|word| word.parse().ok()), word()) else {
        return refuse("is started by `muster exec-worker` alone", 2);
    };
    let Some(command) = words.next() else { return refuse("was given no command", 2) };
    // Asked for first and looked at afterwards: a launcher that died in between would not be noticed otherwise.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return refuse(&format!("cannot bind its life to the launcher's: {error}"), 1);
    }
    if getppid().map(Pid::as_raw_pid) != Some(launcher) {
        return refuse("has lost its launcher", 1);
    }
    if cpus != ANY_CORE {
        let mut set = CpuSet::new();
        let numbers = cpus.split(',').filter_map(|cpu| cpu.parse().ok());
        numbers.filter(|cpu| *cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
        // The cores may have been taken from the pod meanwhile; it then runs on those that it has.
        if let Err(error) = sched_setaffinity(None, &set) {
            note(&format!("cannot bind a worker to processors {cpus}: {error}"));
        }
    }
    // Those that came meanwhile come now.
    if let Err(error) = signals::release() {
        return refuse(&format!("cannot receive signals: {error}"), 1);
    }
    let error = Command::new(&command).args(words).exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    refuse(&format!("cannot execute {}: {error}", command.display()), code)
}

fn refuse(text: &str, code: u8) -> ExitCode {
    note(&format!("a worker {text}"));
    ExitCode::from(code)
}

/// Where this process's standard error goes, the launcher reads.
fn note(text: &str) {
    let line = format!("muster exec-worker: {text}\n");
    // If nobody reads it, the exit code must say it.
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}
