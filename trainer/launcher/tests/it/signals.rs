//! Signals to the launcher, and its death.

use rustix::process::Signal;

use crate::harness::{Gate, Stranger, start, workers};

#[test]
fn signals_go_on_to_all_workers() {
    let script = r"
        for name in HUP QUIT USR1 USR2; do trap 'echo got '$name $name; done
        trap 'echo stopping; exit 0' TERM
        echo ready
        while :; do sleep 600 & wait; kill $!; done";
    let mut running = start(&mut workers(&["--nproc-per-node", "2"], script));
    assert_eq!(running.lines(2), ["[0] ready", "[1] ready"]);
    let signals =
        [(Signal::HUP, "HUP"), (Signal::QUIT, "QUIT"), (Signal::USR1, "USR1"), (Signal::USR2, "USR2")];
    for (signal, name) in signals {
        running.signal(signal);
        assert_eq!(running.lines(2), [format!("[0] got {name}"), format!("[1] got {name}")]);
    }
    running.signal(Signal::TERM);
    assert_eq!(running.lines(2), ["[0] stopping", "[1] stopping"]);
    let ended = running.end().succeeded();
    assert_eq!(ended.stderr, "");
}

#[test]
fn workers_that_die_of_the_signal_are_no_surprise() {
    for (signal, name, code) in [(Signal::TERM, "SIGTERM", 143), (Signal::INT, "SIGINT", 130)] {
        let options = ["--nproc-per-node", "2", "--max-restarts", "3"];
        let mut running = start(&mut workers(&options, "echo a last word >&2; echo ready; exec sleep 600"));
        running.lines(2);
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code(), code, "{ended:?}");
        let asked = format!(", asked to stop by {name}, failed after ");
        assert!(
            ended.stderr.contains(&asked) && ended.stderr.ends_with(&format!(": killed by {name}\n")),
            "{ended:?}"
        );
        assert!(!ended.stderr.contains("start again"), "{ended:?}");
    }
}

#[test]
fn who_does_not_stop_is_killed() {
    let script = "trap '' TERM INT; sleep 600 & echo $!; wait; wait; sleep 600";
    let mut running = start(&mut workers(&["--grace", "200ms"], script));
    let started = Stranger::new(&running.line());
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code(), 137, "{ended:?}");
    assert!(ended.stderr.contains("killed after 200ms in which they did not end: rank 0"), "{ended:?}");
    started.wait();
}

#[test]
fn who_does_not_stop_for_a_failure_of_another_is_killed() {
    let script = r#"
        if [ $RANK = 0 ]; then read go <"$GATE"; exit 3; fi
        trap '' TERM; echo ready; exec sleep 600"#;
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::new(folder.path());
    let mut command = workers(&["--nproc-per-node", "2", "--grace", "200ms"], script);
    let mut running = start(command.env("GATE", gate.path()));
    assert_eq!(running.line(), "[1] ready");
    gate.open("go");
    let ended = running.end();
    assert_eq!(ended.code(), 3, "{ended:?}");
    assert!(ended.stderr.contains("killed after 200ms in which they did not end: rank 1"), "{ended:?}");
}

#[test]
fn nothing_outlives_the_launcher() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' TERM HUP; sleep 600 & echo $!; exec sleep 600";
    let mut command = workers(&["--nproc-per-node", "3"], script);
    let mut running = start(command.env("TMPDIR", folder.path()));
    let started = running.lines(3);
    let started = started.iter().map(|line| Stranger::new(line.split_once(' ').unwrap().1));
    // The workers and the warden, which is the last to end.
    let mut processes: Vec<_> = running.children().iter().map(|child| Stranger::new(child)).collect();
    assert_eq!(processes.len(), 4);
    processes.extend(started);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "for descriptions of failures");
    running.kill();
    processes.iter().for_each(Stranger::wait);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn without_a_warden_workers_still_die_with_the_launcher() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = workers(&[], "echo $$; exec sleep 600");
    let mut running = start(command.env("TMPDIR", folder.path()));
    let worker = running.line();
    for child in running.children().iter().filter(|child| **child != worker) {
        let warden = Stranger::new(child);
        warden.kill();
        warden.wait();
    }
    let worker = Stranger::new(&worker);
    running.kill();
    worker.wait();
}

#[test]
fn a_signal_at_any_moment_of_the_start_stops_it() {
    // Before the first worker, between two of them, and before the program of one.
    for _ in 0..10 {
        let running = start(&mut workers(&["--nproc-per-node", "4"], "exec sleep 600"));
        running.wait_until_blocked();
        running.signal(Signal::TERM);
        assert_eq!(running.end().code(), 143);
    }
}
