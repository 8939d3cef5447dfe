//! Groups of threads and of processes.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use muster_collectives::{Communicator, Error, NetworkOptions, Options};

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

/// An address of this machine that no other test uses, nor any other process.
pub(crate) fn unused_address() -> String {
    static PORTS: AtomicU16 = AtomicU16::new(20_000);
    let [_, bytes @ ..] = (std::process::id() << 1 | 1).to_be_bytes();
    let [first, second, third] = bytes;
    format!("{}:{}", Ipv4Addr::new(127, first, second, third), PORTS.fetch_add(1, Ordering::Relaxed))
}

/// Makes options those of a rank on the pretended host `host`, whose directory no other host sees.
pub(crate) fn on_host(options: &mut Options, directory: &Path, host: usize, address: &str) {
    options.directory = directory.join(host.to_string());
    std::fs::create_dir_all(&options.directory).unwrap();
    options.network = Some(NetworkOptions {
        // Longer than the machine ever stalls a test that does not ask for silence.
        silence: Duration::from_secs(20),
        ..NetworkOptions::new(address)
    });
}

/// As [`on_threads`], with one rank for each entry of `layout`, on the pretended host that it says.
pub(crate) fn on_hosts<R: Send>(
    layout: &[usize],
    adjust: impl Fn(&mut Options) + Sync,
    work: impl Fn(Communicator) -> R + Sync,
) -> Vec<R> {
    let address = unused_address();
    let directory = tempfile::tempdir().unwrap();
    let host = |options: &mut Options| {
        on_host(options, directory.path(), layout[options.rank], &address);
        adjust(options);
    };
    let results = on_threads(layout.len(), host, work);
    for host in std::fs::read_dir(directory.path()).unwrap() {
        let left = std::fs::read_dir(host.unwrap().path()).unwrap().count();
        assert_eq!(left, 0, "the rendezvous leaves nothing behind");
    }
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

/// A connection to a rank that may only be on its way to listen.
pub(crate) fn call_on(address: &str) -> TcpStream {
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
        }
    }
}
