//! Ranks of an elastic training come and go.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use muster_rendezvous::{Bounds, Member, MemberOptions};
use nix::sys::signal::{Signal, raise};

use crate::job::{Job, arguments, digits, field, own_address, text};
use crate::running::Running;

/// What a rank of a training of so many ranks is told.
fn tell(rendezvous: SocketAddr, command: &mut Command, nodes: &str) {
    command
        .env("MUSTER_RENDEZVOUS", format!("http://{rendezvous}"))
        .env("PET_NNODES", nodes)
        .env("MUSTER_REPLICAS", "1");
}

/// Makes a rank that of a host of its own.
fn as_host(command: &mut Command, folder: &Path, rank: usize, first_port: usize) {
    let own = folder.join(format!("host-{rank}"));
    fs_err::create_dir_all(&own).unwrap();
    // Hosts that share this machine's network need a port each.
    let port = first_port + rank;
    command.env_remove("MUSTER_PEERS_DIR").env("TMPDIR", own).env("MASTER_PORT", port.to_string());
    command.env("MASTER_ADDR", "digits");
}

/// A job whose ranks share memory.
fn job<'a>(
    rendezvous: SocketAddr,
    folder: &'a Path,
    nodes: &'static str,
    arguments: impl Fn(usize) -> Vec<String> + 'a,
) -> Job<'a> {
    Job::prepare(arguments, move |command, _| {
        tell(rendezvous, command, nodes);
        command.env("MUSTER_PEERS_DIR", folder);
    })
}

/// A training that does not end by itself.
fn more(sharding: &str) -> [&str; 6] {
    [sharding, "--epochs=100000", "--batch-size=16", "--hidden=64", "--seed=7", "--log-every=1"]
}

/// Waits until the ranks go on in a group of so many.
fn wait_for_group(job: &mut Job<'_>, rank: usize, world_size: usize) -> String {
    job.wait_for(rank, &format!("world_size={world_size} "))
}

/// Ends what is left of a training that still learns.
fn stop(job: &mut Job<'_>, ranks: &[usize]) {
    job.wait_for(0, "train_accuracy=1.0000 ");
    for rank in ranks {
        job.signal(*rank, Signal::SIGTERM);
    }
    for rank in ranks {
        let output = job.finish(*rank);
        assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
    }
}

/// The step at which an event was told.
fn step(line: &str) -> u64 {
    field(line, "step").parse().unwrap()
}

fn ranks_come_and_go(job: &mut Job<'_>) {
    job.start_rank(0);
    // It begins alone, and so is rank 0.
    job.wait_for(0, "step=1 ");
    job.start_rank(1);
    wait_for_group(job, 0, 2);
    job.start_rank(2);
    let change = job.wait_for(0, "event=change ");
    let joined = wait_for_group(job, 0, 3);
    assert_eq!(step(&change), step(&joined), "nothing is lost when a rank joins");
    job.wait_for(0, &format!("step={} ", step(&joined) + 5));
    job.signal(1, Signal::SIGTERM);
    let left = job.finish(1);
    assert_eq!(left.status.code(), Some(143), "{}", text(&left.stderr));
    let change = job.wait_for(0, "event=change ");
    let gone = wait_for_group(job, 0, 2);
    assert_eq!(step(&change), step(&gone), "nothing is lost when a rank leaves");
    job.wait_for(0, &format!("step={} ", step(&gone) + 5));
    job.signal(2, Signal::SIGKILL);
    assert!(!job.finish(2).status.success());
    let alone = wait_for_group(job, 0, 1);
    job.start_rank(1);
    let again = wait_for_group(job, 0, 2);
    assert!(step(&again) > step(&alone), "a rank that is alone trains on");
    stop(job, &[0, 1]);
}

#[test]
fn ranks_come_and_go_on_one_host() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((Ipv4Addr::LOCALHOST, 0).into());
    for sharding in ["--sharding=none", "--sharding=parameters"] {
        let peers = tempfile::tempdir().unwrap();
        let words = arguments(&data, &more(sharding));
        ranks_come_and_go(&mut job(rendezvous.address, peers.path(), "1:4", |_| words.clone()));
    }
}

#[test]
fn ranks_come_and_go_on_several_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((own_address(), 0).into());
    let words = arguments(&data, &more("--sharding=gradients"));
    let mut job = Job::prepare(
        |_| words.clone(),
        |command, rank| {
            tell(rendezvous.address, command, "1:4");
            as_host(command, folder.path(), rank, 23_500);
        },
    );
    ranks_come_and_go(&mut job);
}

#[test]
fn neighbours_that_leave_together_take_no_share_along() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((Ipv4Addr::LOCALHOST, 0).into());
    let words = arguments(&data, &more("--sharding=parameters"));
    let mut job = job(rendezvous.address, folder.path(), "1:4", |_| words.clone());
    job.start_rank(0);
    job.wait_for(0, "step=1 ");
    (1..4).for_each(|rank| job.start_rank(rank));
    wait_for_group(&mut job, 0, 4);
    for rank in 1..4 {
        job.signal(rank, Signal::SIGTERM);
    }
    for rank in 1..4 {
        let left = job.finish(rank);
        assert_eq!(left.status.code(), Some(143), "{}", text(&left.stderr));
    }
    wait_for_group(&mut job, 0, 1);
    stop(&mut job, &[0]);
}

#[test]
fn a_training_outlives_the_rendezvous() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let words = arguments(&data, &more("--sharding=none"));
    let first = Running::open((Ipv4Addr::LOCALHOST, 0).into());
    let listen = first.address;
    let mut job = job(listen, folder.path(), "1:4", |_| words.clone());
    job.start_rank(0);
    job.wait_for(0, "step=1 ");
    job.start_rank(1);
    let before = step(&wait_for_group(&mut job, 0, 2));
    drop(first);
    job.wait_for(0, &format!("step={} ", before + 10));
    let _second = Running::open(listen);
    job.start_rank(2);
    let joined = wait_for_group(&mut job, 0, 3);
    assert!(step(&joined) > before + 10, "{joined}");
    stop(&mut job, &[0, 1, 2]);
}

#[test]
fn a_newcomer_with_other_settings_ends_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((Ipv4Addr::LOCALHOST, 0).into());
    let words = |rank: usize| {
        let mut words = arguments(&data, &more("--sharding=none"));
        words.extend((rank == 2).then(|| "--learning-rate=0.5".to_owned()));
        words
    };
    let mut job = job(rendezvous.address, folder.path(), "1:4", words);
    job.start_rank(0);
    job.wait_for(0, "step=1 ");
    job.start_rank(1);
    let joined = step(&wait_for_group(&mut job, 0, 2));
    job.start_rank(2);
    let stranger = job.finish(2);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(text(&stranger.stderr).contains("other settings than rank 0"), "{}", text(&stranger.stderr));
    let again = step(&wait_for_group(&mut job, 0, 2));
    assert!(again > joined, "{again} after {joined}");
    stop(&mut job, &[0, 1]);
}

#[test]
fn newcomers_that_die_while_they_join_cost_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((Ipv4Addr::LOCALHOST, 0).into());
    for sharding in ["--sharding=none", "--sharding=optimizer"] {
        let peers = tempfile::tempdir().unwrap();
        let words = arguments(&data, &more(sharding));
        let mut job = job(rendezvous.address, peers.path(), "1:4", |_| words.clone());
        job.start_rank(0);
        job.wait_for(0, "step=1 ");
        job.start_rank(1);
        let mut last = step(&wait_for_group(&mut job, 0, 2));
        for attempt in 0..4 {
            job.start_rank(2);
            let change = step(&job.wait_for(0, "event=change "));
            assert!(change > last, "{change} after {last}");
            // Sooner or later after its place was given.
            (0..attempt * 40_000).for_each(|_| std::hint::spin_loop());
            job.signal(2, Signal::SIGKILL);
            assert!(!job.finish(2).status.success());
            last = step(&wait_for_group(&mut job, 0, 2));
            assert!(last >= change, "{last} after {change}: nothing is lost");
        }
        stop(&mut job, &[0, 1]);
    }
}

/// Not a test by itself: a rank that is killed when it has its place, before it has met the others.
#[test]
fn role_of_a_rank_that_never_comes() {
    let Ok(address) = std::env::var("MUSTER_TEST_RENDEZVOUS") else { return };
    let options = MemberOptions {
        addresses: vec![address],
        authority: None,
        token_file: None,
        member: "phantom".into(),
        group: std::env::var("MUSTER_TEST_GROUP").unwrap(),
        host: "phantom".into(),
        listens: String::new(),
        bounds: Bounds { fewest: 1, expected: 1, most: 4 },
        last_call: None,
        news: None,
    };
    let member = Member::attend(options).unwrap();
    member.place(0, Duration::from_mins(1)).unwrap();
    raise(Signal::SIGKILL).unwrap();
}

fn lose_a_rank_that_has_its_place(job: &mut Job<'_>, rendezvous: SocketAddr, group: &str) {
    job.start_rank(0);
    job.wait_for(0, "step=1 ");
    job.start_rank(1);
    let before = step(&wait_for_group(job, 0, 2));
    let mut phantom = Command::new(std::env::current_exe().unwrap());
    phantom
        .args(["elastic::role_of_a_rank_that_never_comes", "--exact", "--nocapture"])
        .env("MUSTER_TEST_RENDEZVOUS", format!("http://{rendezvous}"))
        .env("MUSTER_TEST_GROUP", group)
        .stdout(Stdio::null());
    assert_eq!(phantom.status().unwrap().signal(), Some(Signal::SIGKILL as i32));
    let change = step(&job.wait_for(0, "event=change "));
    let again = step(&wait_for_group(job, 0, 2));
    assert!(before <= change && change == again, "{before}, {change}, {again}: nothing is lost");
    job.wait_for(0, "train_accuracy=1.0000 ");
    for rank in [0, 1] {
        job.signal(rank, Signal::SIGTERM);
    }
    // Not that they waited in vain: they were told.
    let told = |rank: usize| {
        format!(
            "muster-train: rank {rank}: rank {rank} gave the group up before it had formed: rank 2 of epoch 3 on phantom \
             has left the training; asking for another place\n"
        )
    };
    for rank in [0, 1] {
        let output = job.finish(rank);
        let said = text(&output.stderr);
        assert!(said.contains(&told(0)) || said.contains(&told(1)), "{said}");
    }
}

#[test]
fn a_rank_that_dies_between_its_place_and_its_group_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((own_address(), 0).into());
    let words = arguments(&data, &more("--sharding=none"));
    let mut on_one_host = job(rendezvous.address, folder.path(), "1:4", |_| words.clone());
    lose_a_rank_that_has_its_place(&mut on_one_host, rendezvous.address, "training-elastic");
    let mut on_several = Job::prepare(
        |_| words.clone(),
        |command, rank| {
            tell(rendezvous.address, command, "1:4");
            as_host(command, folder.path(), rank, 23_600);
        },
    );
    lose_a_rank_that_has_its_place(&mut on_several, rendezvous.address, "digits-elastic");
}

#[test]
fn whoever_comes_too_late_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((Ipv4Addr::LOCALHOST, 0).into());
    let words = arguments(&data, &["--epochs=1", "--seed=7"]);
    let mut job = job(rendezvous.address, folder.path(), "2:4", |_| words.clone());
    (0..2).for_each(|rank| job.start_rank(rank));
    for rank in 0..2 {
        assert!(job.finish(rank).status.success());
    }
    job.start_rank(2);
    let late = job.finish(2);
    assert_eq!(late.status.code(), Some(0));
    assert!(text(&late.stderr).contains("has reached its end without this rank"), "{}", text(&late.stderr));
}

#[test]
fn an_elastic_training_that_is_told_to_stop_stops() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let rendezvous = Running::open((Ipv4Addr::LOCALHOST, 0).into());
    let words = arguments(&data, &["--epochs=100000", "--log-every=1"]);
    let mut job = job(rendezvous.address, folder.path(), "2:4", |_| words.clone());
    (0..2).for_each(|rank| job.start_rank(rank));
    (0..2).for_each(|rank| drop(job.wait_for(rank, "event=joined ")));
    job.signal(0, Signal::SIGTERM);
    // With fewer than two nothing goes on: it waits, and hears its signal.
    let left = job.finish(0);
    assert_eq!(left.status.code(), Some(143), "{}", text(&left.stderr));
    job.wait_for(1, "event=change ");
    job.signal(1, Signal::SIGTERM);
    let left = job.finish(1);
    assert_eq!(left.status.code(), Some(143), "{}", text(&left.stderr));
}
