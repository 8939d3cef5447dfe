//! Groups that lose a rank while they form.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use muster_collectives::{CallOff, Communicator, Error, HungUp, Options};

use crate::support::{Process, on_host, options, unused_address};

const ROLE: &str = "forming::role_of_a_rank";

/// Where ranks meet.
struct Place {
    directory: tempfile::TempDir,
    /// None where they share a host.
    address: Option<String>,
}

impl Place {
    fn of_one_host() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), address: None }
    }

    fn of_several_hosts() -> Self {
        Self { address: Some(unused_address()), ..Self::of_one_host() }
    }

    fn options(&self, rank: usize, patience: Duration) -> Options {
        options_at(self.directory.path(), self.address.as_deref(), rank, patience)
    }

    /// Rank 2 in a process, which has come when this returns; another rank must still be missing.
    fn rank_2(&self) -> Process {
        let mut environment = vec![("MUSTER_TEST_DIRECTORY", self.directory.path().display().to_string())];
        environment.extend(self.address.clone().map(|address| ("MUSTER_TEST_ADDRESS", address)));
        let process = Process::start(ROLE, &environment);
        let taken = format!("rank 2 is taken by process {} on host-2", process.id().as_raw_nonzero());
        // One that wants the same seat learns whose it is. If it is the first there, it makes room for long enough.
        let began = Instant::now();
        while began.elapsed() < LONG {
            std::thread::park_timeout(Duration::from_millis(50));
            let mut options = self.options(2, Duration::from_millis(500));
            options.host = "another".into();
            let error = Communicator::connect(&options).unwrap_err();
            if error.to_string().contains(&taken) {
                return process;
            }
        }
        panic!("rank 2 has not come");
    }
}

fn options_at(directory: &Path, address: Option<&str>, rank: usize, patience: Duration) -> Options {
    let mut options = options(directory, rank, 4);
    if let Some(address) = address {
        on_host(&mut options, directory, rank, address);
    }
    options.join_deadline = patience;
    options
}

/// Not a test by itself: what [`Place::rank_2`] runs.
#[test]
fn role_of_a_rank() {
    let Ok(directory) = std::env::var("MUSTER_TEST_DIRECTORY") else { return };
    let address = std::env::var("MUSTER_TEST_ADDRESS").ok();
    let options = options_at(Path::new(&directory), address.as_deref(), 2, LONG);
    let group = Communicator::connect(&options);
    drop(group);
}

/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_mins(1);

fn lose_rank_2(place: &Place) {
    std::thread::scope(|scope| {
        let connect = |rank, patience| Communicator::connect(&place.options(rank, patience)).unwrap_err();
        let leader = scope.spawn(move || connect(0, Duration::from_secs(10)));
        let other = scope.spawn(move || connect(1, LONG));
        let process = place.rank_2();
        let number = process.id().as_raw_nonzero().get() as u32;
        // Kills it.
        drop(process);
        let error = leader.join().unwrap();
        let Error::NotJoined { missing, hung_up, .. } = &error else { panic!("{error}") };
        assert_eq!(*missing, [2, 3]);
        assert_eq!(**hung_up, [HungUp { rank: 2, process: number, host: "host-2".into() }]);
        let message = error.to_string();
        let told = format!("had come, but died or gave up: rank 2 (process {number} on host-2)");
        assert!(message.contains(&told), "{message}");
        let other = other.join().unwrap();
        assert!(matches!(other, Error::NotFormed { rank: 1, .. }), "{other}");
        assert_eq!(other.to_string(), format!("rank 0 gave the group up: {message}"));
    });
}

#[test]
fn a_rank_that_came_and_died_is_named_to_all_who_came() {
    lose_rank_2(&Place::of_one_host());
}

#[test]
fn a_rank_of_another_host_that_came_and_died_is_named_to_all_who_came() {
    lose_rank_2(&Place::of_several_hosts());
}

#[test]
fn a_rank_that_died_is_replaced_before_the_deadline() {
    for place in [Place::of_one_host(), Place::of_several_hosts()] {
        std::thread::scope(|scope| {
            let start = |rank| {
                let options = place.options(rank, LONG);
                scope.spawn(move || Communicator::connect(&options).unwrap().barrier().unwrap());
            };
            [0, 1].into_iter().for_each(start);
            // Killed, and gone, before the others come.
            drop(place.rank_2());
            [2, 3].into_iter().for_each(start);
        });
    }
}

#[test]
fn a_group_that_is_called_off_waits_no_longer() {
    const REASON: &str = "rank 2 on host-2 has left the training";
    // No rank would come to the end of its patience.
    let patience = Duration::from_hours(1);
    for place in [Place::of_one_host(), Place::of_several_hosts()] {
        let is_gone = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&is_gone);
        let call_off = CallOff::once(move || known.load(Ordering::Relaxed).then(|| REASON.to_owned()));
        let connect = |rank, call_off: Option<CallOff>| {
            let options = Options { call_off, ..place.options(rank, patience) };
            Communicator::connect(&options).unwrap_err()
        };
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| connect(0, Some(call_off.clone())));
            let other = scope.spawn(|| connect(1, None));
            drop(place.rank_2());
            is_gone.store(true, Ordering::Relaxed);
            let error = leader.join().unwrap();
            assert!(matches!(&error, Error::CalledOff { rank: 0, reason } if reason == REASON), "{error}");
            let error = other.join().unwrap();
            // It may have come only after rank 0 had gone, if it knew nothing by itself.
            assert_eq!(error.to_string(), format!("rank 0 gave the group up: {REASON}"));
        });
        let error = connect(3, Some(call_off));
        assert!(matches!(&error, Error::CalledOff { rank: 3, reason } if reason == REASON), "{error}");
    }
}
