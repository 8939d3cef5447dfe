//! Groups of threads and of processes.

use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use muster_collectives::{Communicator, Error, Options};

pub(crate) fn options(directory: &Path, rank: usize, world_size: usize) -> Options {
    let mut options = Options::new(directory, "test", rank, world_size);
    options.host = format!("host-{rank}");
    options.join_deadline = Duration::from_mins(1);
    options.deadline = Duration::from_secs(30);
    options.arena_bytes = 16 << 20;
    options
}

/// Runs `work` on `world_size` ranks, each a thread with its own communicator; gives the results in rank order.
pub(crate) fn on_threads<R: Send>(
    world_size: usize,
    adjust: impl Fn(&mut Options) + Sync,
    work: impl Fn(Communicator) -> R + Sync,
) -> Vec<R> {
    let directory = tempfile::tempdir().unwrap();
    let results = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                let mut options = options(directory.path(), rank, world_size);
                adjust(&mut options);
                let work = &work;
                scope.spawn(move || work(Communicator::connect(&options).unwrap()))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "the rendezvous leaves nothing behind"
    );
    results
}

/// A rank in a process of its own: this test binary, running the test `role` with the environment given.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(role: &str, environment: &[(&str, String)]) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([role, "--exact", "--nocapture", "--test-threads=1"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn output(&mut self) -> ChildStdout {
        self.0.stdout.take().unwrap()
    }

    pub(crate) fn id(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The failure of a collective, which every survivor must see.
pub(crate) fn failure<T: std::fmt::Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("the collective must fail")
}
