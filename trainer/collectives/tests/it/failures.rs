//! Peers that die, stop or leave: every survivor learns who, quickly, whatever it was doing.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use muster_collectives::{Communicator, Error, LossCause, Options, Reduction};
use rustix::process::{Signal, kill_process};

use crate::certificates::{Authority, files_in};
use crate::support::{Process, failure, on_host, on_hosts, on_threads, options, unused_address};

const ROLE: &str = "failures::role_of_a_rank";

/// Not a test by itself: what a rank does when [`Process::start`] runs this binary.
#[test]
fn role_of_a_rank() {
    let Ok(directory) = std::env::var("MUSTER_TEST_DIRECTORY") else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let (rank, world_size) = (number("MUSTER_TEST_RANK"), number("MUSTER_TEST_WORLD"));
    let mut options = options(Path::new(&directory), rank, world_size);
    options.deadline = Duration::from_millis(number("MUSTER_TEST_DEADLINE") as u64);
    if let Ok(address) = std::env::var("MUSTER_TEST_ADDRESS") {
        on_host(&mut options, Path::new(&directory), number("MUSTER_TEST_HOST"), &address);
        let silence = Duration::from_millis(number("MUSTER_TEST_SILENCE") as u64);
        let network = options.network.as_mut().unwrap();
        network.silence = silence;
        network.tls =
            std::env::var("MUSTER_TEST_CERTIFICATES").ok().map(|folder| files_in(Path::new(&folder)));
    }
    let mut group = Communicator::connect(&options).unwrap();
    let phase = std::env::var("MUSTER_TEST_PHASE").unwrap();
    println!("ready {rank}");
    let stuck = phase == "waiting" && rank == number("MUSTER_TEST_VICTIM");
    if stuck {
        // The others wait in their first collective until this process is killed.
        let (mut reader, _writer) = std::io::pipe().unwrap();
        let _ = reader.read(&mut [0]);
    }
    let mut buffer = group.allocate::<f32>(world_size << 18).unwrap();
    let mut staged = vec![1_f32; 300_000];
    // The other ranks read it where it lies.
    let mut long = vec![1_f32; if phase == "long" { 3 << 20 } else { 0 }];
    let mut gathered = vec![0_f32; 4 * world_size * 20_000];
    let (next, last) = ((rank + 1) % world_size, (rank + world_size - 1) % world_size);
    let error = loop {
        let result = match phase.as_str() {
            "registered" => group.all_reduce(&mut buffer, Reduction::Average),
            "staged" => group.all_reduce_staged(&mut staged, Reduction::Average),
            "long" => group.all_reduce_staged(&mut long, Reduction::Average),
            "broadcast" => group.broadcast(&mut staged, 0),
            "reduce" => group.reduce(&mut staged, Reduction::Sum, 1),
            "gather" => group.gather(&staged[..80_000], &mut gathered, 1),
            "scatter" => group.scatter(&gathered, &mut staged[..80_000], 1),
            "all_to_all" => {
                group.all_to_all(&staged[..world_size * 60_000], &mut gathered[..world_size * 60_000])
            }
            "gather_registered" => group.all_gather_registered(&mut buffer),
            "message" => {
                group.send(&staged[..10_000], next).and_then(|()| group.receive(&mut staged[..10_000], last))
            }
            _ => group.barrier(),
        };
        if let Err(error) = result {
            break error;
        }
    };
    buffer.fill(0.0);
    println!("error {rank}: {error}");
    if std::env::var("MUSTER_TEST_REBUILD").is_err() {
        return;
    }
    let mut group = match group.rebuild(Duration::from_mins(1)) {
        Ok(group) => group,
        Err(Error::GivenUp { .. }) => return println!("given up {rank}"),
        Err(error) => panic!("{error}"),
    };
    let mut sum = [1 << rank];
    group.all_reduce_staged(&mut sum, Reduction::Sum).unwrap();
    println!("rebuilt {rank}: rank {} of {}, sum {}", group.rank(), group.world_size(), sum[0]);
}

/// How ranks of different hosts talk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    Plain,
    Secured,
}

/// Pretended hosts.
struct Pretence {
    layout: &'static [usize],
    silence: Duration,
    address: String,
    authority: Option<Authority>,
}

struct Gang {
    _directory: tempfile::TempDir,
    _network: Option<Pretence>,
    ranks: Vec<Process>,
    lines: Vec<BufReader<std::process::ChildStdout>>,
}

impl Gang {
    fn start(world_size: usize, phase: &str, victim: usize, deadline: Duration) -> Self {
        Self::start_with(world_size, phase, victim, deadline, &[])
    }

    fn start_with(
        world_size: usize,
        phase: &str,
        victim: usize,
        deadline: Duration,
        more: &[(&'static str, String)],
    ) -> Self {
        Self::start_on(None, world_size, phase, victim, deadline, more)
    }

    /// On several pretended hosts.
    fn between_hosts(
        talk: Talk,
        layout: &'static [usize],
        silence: Duration,
        phase: &str,
        victim: usize,
        deadline: Duration,
        more: &[(&'static str, String)],
    ) -> Self {
        let authority = (talk == Talk::Secured).then(Authority::new);
        let network = Pretence { layout, silence, address: unused_address(), authority };
        Self::start_on(Some(network), layout.len(), phase, victim, deadline, more)
    }

    fn start_on(
        network: Option<Pretence>,
        world_size: usize,
        phase: &str,
        victim: usize,
        deadline: Duration,
        more: &[(&'static str, String)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut ranks: Vec<Process> = (0..world_size)
            .map(|rank| {
                let mut environment = vec![
                    ("MUSTER_TEST_DIRECTORY", directory.path().display().to_string()),
                    ("MUSTER_TEST_RANK", rank.to_string()),
                    ("MUSTER_TEST_WORLD", world_size.to_string()),
                    ("MUSTER_TEST_PHASE", phase.to_owned()),
                    ("MUSTER_TEST_VICTIM", victim.to_string()),
                    ("MUSTER_TEST_DEADLINE", deadline.as_millis().to_string()),
                ];
                environment.extend_from_slice(more);
                if let Some(network) = &network {
                    environment.extend([
                        ("MUSTER_TEST_ADDRESS", network.address.clone()),
                        ("MUSTER_TEST_HOST", network.layout[rank].to_string()),
                        ("MUSTER_TEST_SILENCE", network.silence.as_millis().to_string()),
                    ]);
                    environment.extend(network.authority.as_ref().map(|authority| {
                        ("MUSTER_TEST_CERTIFICATES", authority.folder().display().to_string())
                    }));
                }
                Process::start(ROLE, &environment)
            })
            .collect();
        let mut lines: Vec<_> = ranks.iter_mut().map(|rank| BufReader::new(rank.output())).collect();
        for line in &mut lines {
            next_line(line, "ready");
        }
        Self { _directory: directory, _network: network, ranks, lines }
    }

    /// The errors of the ranks other than `victim`.
    fn errors(&mut self, victim: usize) -> Vec<String> {
        let lines = self.lines.iter_mut().enumerate().filter(|(rank, _)| *rank != victim);
        lines.map(|(_, line)| next_line(line, "error")).collect()
    }
}

fn next_line(lines: &mut impl BufRead, prefix: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the process ended before it printed {prefix:?}");
        // The test harness prints its own text in front of the first line.
        if let Some(at) = line.find(prefix) {
            return line[at..].trim_end().to_owned();
        }
    }
}

const PHASES: [&str; 12] = [
    "waiting",
    "barrier",
    "registered",
    "staged",
    "long",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "all_to_all",
    "gather_registered",
    "message",
];

#[test]
fn every_survivor_names_a_killed_rank_in_every_phase() {
    for phase in PHASES {
        for victim in [0, 2] {
            let mut gang = Gang::start(4, phase, victim, Duration::from_mins(1));
            let killed = Instant::now();
            kill_process(gang.ranks[victim].id(), Signal::KILL).unwrap();
            let errors = gang.errors(victim);
            let elapsed = killed.elapsed();
            for error in errors {
                assert!(error.contains(&format!("lost rank {victim} on host-{victim}")), "{phase}: {error}");
            }
            // The bar is 100 ms; the test allows for a machine that is busy with other tests.
            assert!(elapsed < Duration::from_secs(5), "{phase}, rank {victim}: took {elapsed:?}");
            eprintln!("{phase}, rank {victim}: all survivors know after {elapsed:?}");
        }
    }
}

#[test]
fn a_stopped_rank_is_named_at_the_deadline() {
    for phase in ["barrier", "registered", "staged", "all_to_all"] {
        let mut gang = Gang::start(3, phase, 9, Duration::from_secs(1));
        kill_process(gang.ranks[1].id(), Signal::STOP).unwrap();
        for error in gang.errors(1) {
            assert!(error.contains("rank 1 did not reach call"), "{phase}: {error}");
            assert!(error.contains("within 1s"), "{phase}: {error}");
        }
    }
}

#[test]
fn a_rank_that_is_stopped_for_less_than_the_deadline_disturbs_nobody() {
    let mut gang = Gang::start(2, "staged", 9, Duration::from_mins(1));
    kill_process(gang.ranks[1].id(), Signal::STOP).unwrap();
    kill_process(gang.ranks[1].id(), Signal::CONT).unwrap();
    // Both still work: the death of one is the only failure the other reports.
    kill_process(gang.ranks[1].id(), Signal::KILL).unwrap();
    for error in gang.errors(1) {
        assert!(error.contains("lost rank 1 on host-1"), "{error}");
    }
}

#[test]
fn survivors_of_a_killed_rank_go_on_in_the_same_processes() {
    for (phase, victim) in [("registered", 0), ("staged", 2), ("message", 3)] {
        let rebuild = [("MUSTER_TEST_REBUILD", String::from("yes"))];
        let mut gang = Gang::start_with(4, phase, victim, Duration::from_mins(1), &rebuild);
        kill_process(gang.ranks[victim].id(), Signal::KILL).unwrap();
        gang.errors(victim);
        let sum = 0b1111 - (1 << victim);
        let survivors = gang.lines.iter_mut().enumerate().filter(|(rank, _)| *rank != victim);
        for (next_rank, (rank, lines)) in survivors.enumerate() {
            let line = next_line(lines, "rebuilt");
            assert_eq!(line, format!("rebuilt {rank}: rank {next_rank} of 3, sum {sum}"), "{phase}");
        }
    }
}

/// Tests between hosts, each with plain connections and under TLS.
macro_rules! between_hosts {
    ($($name:ident: $body:ident),*) => {
        $(
            #[test]
            fn $name() {
                $body(Talk::Plain);
            }
        )*

        mod under_tls {
            $(
                #[test]
                fn $name() {
                    super::$body(super::Talk::Secured);
                }
            )*
        }
    };
}

between_hosts!(
    every_survivor_on_every_host_names_a_killed_rank_in_every_phase: kill_in_every_phase,
    a_rank_of_another_host_that_is_stopped_is_given_up_after_the_silence_long_before_the_deadline: stop_one,
    a_rank_of_another_host_that_does_not_come_is_named_at_the_deadline: stay_away,
    survivors_on_several_hosts_go_on_in_the_same_processes: kill_one_and_go_on,
    survivors_go_on_without_a_rank_that_fell_silent: stop_one_and_go_on
);

/// Longer than any of these tests takes, so that what they see is not silence.
const LONG: Duration = Duration::from_mins(1);

fn kill_in_every_phase(talk: Talk) {
    for phase in PHASES {
        for victim in [0, 3] {
            let mut gang = Gang::between_hosts(talk, &[0, 0, 1, 1, 2], LONG, phase, victim, LONG, &[]);
            let killed = Instant::now();
            kill_process(gang.ranks[victim].id(), Signal::KILL).unwrap();
            for error in gang.errors(victim) {
                assert!(
                    error.contains(&format!("lost rank {victim} on host-{victim}: its process ended")),
                    "{phase}: {error}"
                );
            }
            eprintln!("{phase}, rank {victim}: all survivors know after {:?}", killed.elapsed());
        }
    }
}

fn stop_one(talk: Talk) {
    for phase in ["barrier", "registered", "message"] {
        let silence = Duration::from_secs(2);
        let mut gang = Gang::between_hosts(talk, &[0, 0, 1], silence, phase, 9, LONG, &[]);
        let stopped = Instant::now();
        kill_process(gang.ranks[2].id(), Signal::STOP).unwrap();
        for error in gang.errors(2) {
            assert!(error.contains("lost rank 2 on host-2: nothing was heard of it"), "{phase}: {error}");
        }
        eprintln!("{phase}: all survivors know after {:?}", stopped.elapsed());
    }
}

fn stay_away(talk: Talk) {
    // It is there, and says so, but waits for something else.
    let mut gang = Gang::between_hosts(talk, &[0, 0, 1], LONG, "waiting", 2, Duration::from_secs(1), &[]);
    for error in gang.errors(2) {
        assert!(error.contains("rank 2 did not reach call") && error.contains("within 1s"), "{error}");
    }
    let mut gang = Gang::between_hosts(talk, &[0, 0, 1, 1], LONG, "waiting", 3, Duration::from_secs(1), &[]);
    for error in gang.errors(3) {
        // Its neighbour misses it while the other host misses the neighbour, which waits: both tell the truth.
        assert!(
            error.contains("rank 3 did not reach call") || error.contains("rank 2 did not reach call"),
            "{error}"
        );
    }
}

fn kill_one_and_go_on(talk: Talk) {
    // Rank 0, where they met, a host of its own, and one of several of a host.
    for (phase, victim) in [("registered", 0), ("staged", 4), ("message", 3)] {
        let rebuild = [("MUSTER_TEST_REBUILD", String::from("yes"))];
        let mut gang = Gang::between_hosts(talk, &[0, 0, 1, 1, 2], LONG, phase, victim, LONG, &rebuild);
        kill_process(gang.ranks[victim].id(), Signal::KILL).unwrap();
        gang.errors(victim);
        let sum = 0b1_1111 - (1 << victim);
        let survivors = gang.lines.iter_mut().enumerate().filter(|(rank, _)| *rank != victim);
        for (next_rank, (rank, lines)) in survivors.enumerate() {
            let line = next_line(lines, "rebuilt");
            assert_eq!(line, format!("rebuilt {rank}: rank {next_rank} of 4, sum {sum}"), "{phase}");
        }
    }
}

fn stop_one_and_go_on(talk: Talk) {
    let rebuild = [("MUSTER_TEST_REBUILD", String::from("yes"))];
    let silence = Duration::from_secs(2);
    let mut gang = Gang::between_hosts(talk, &[0, 1, 1, 2], silence, "staged", 9, LONG, &rebuild);
    kill_process(gang.ranks[0].id(), Signal::STOP).unwrap();
    for error in gang.errors(0) {
        assert!(error.contains("lost rank 0 on host-0: nothing was heard of it"), "{error}");
    }
    for rank in 1..4 {
        let line = next_line(&mut gang.lines[rank], "rebuilt");
        assert_eq!(line, format!("rebuilt {rank}: rank {} of 3, sum 14", rank - 1));
    }
    // It comes back to a group that has gone on without it.
    kill_process(gang.ranks[0].id(), Signal::CONT).unwrap();
    assert!(next_line(&mut gang.lines[0], "error").contains("lost rank"));
    assert_eq!(next_line(&mut gang.lines[0], "given up"), "given up 0");
}

fn leave_early(mut group: Communicator) -> Option<Error> {
    if group.rank() == 2 {
        group.barrier().unwrap();
        return None;
    }
    // Where ranks share a host, one that is behind may be told in the call that the others have just ended.
    Some(failure(group.barrier().and_then(|()| group.barrier())))
}

#[test]
fn leaving_early_is_told_from_dying() {
    let authority = Authority::new();
    let errors = [
        on_hosts(&[0, 0, 1, 0, 1], |options| authority.secure(options), leave_early),
        on_threads(3, |_| (), leave_early),
        on_hosts(&[0, 1, 2], |_| (), leave_early),
        on_hosts(&[0, 1, 1], |_| (), leave_early),
        on_hosts(&[0, 0, 1, 0, 1], |_| (), leave_early),
    ];
    for error in errors.into_iter().flatten().flatten() {
        assert!(
            matches!(&error, Error::PeerLost { rank: 2, cause: LossCause::Left, host } if host == "host-2"),
            "{error}"
        );
    }
}

#[test]
fn ranks_that_leave_after_the_last_call_disturb_nobody() {
    let authority = Authority::new();
    for _ in 0..50 {
        on_threads(4, |_| (), |mut group| group.barrier().unwrap());
    }
    for _ in 0..10 {
        on_hosts(&[0, 0, 1, 2], |_| (), |mut group| group.barrier().unwrap());
        on_hosts(&[0, 0, 1, 2], |options| authority.secure(options), |mut group| group.barrier().unwrap());
    }
}

#[test]
fn a_new_group_forms_where_rank_0_of_the_last_one_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("test.sock");
    let stale = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    drop(stale);
    assert!(socket.exists());
    let connect = |options: Options| Communicator::connect(&options).unwrap().barrier().unwrap();
    std::thread::scope(|scope| {
        for rank in [1, 0] {
            let options = options(directory.path(), rank, 2);
            scope.spawn(move || connect(options));
        }
    });
    assert!(!socket.exists());
}
