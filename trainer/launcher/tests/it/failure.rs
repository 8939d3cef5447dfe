//! Workers that fail: what happens to the others, and what is told.

use serde_json::Value;

use crate::harness::{Gate, Stranger, run, start, workers};

#[test]
fn a_failure_stops_the_others_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let [log, errors] = ["termination-log", "error.json"].map(|name| folder.path().join(name));
    let script = r#"
        echo "ready $$"
        if [ $RANK = 1 ]; then
            read go <"$GATE"
            for line in 1 2 3 4; do echo "line $line" >&2; done
            exit 3
        fi
        exec sleep 600"#;
    let options = ["--nproc-per-node", "3", "--last-lines", "2", "--termination-log", log.to_str().unwrap()];
    let mut command = workers(&options, script);
    command.env("TORCHELASTIC_ERROR_FILE", &errors).env("HOSTNAME", "digits-master-0");
    let gate = Gate::new(folder.path());
    let mut running = start(command.env("GATE", gate.path()));
    let ready = running.lines(3);
    gate.open("go");
    let ended = running.end();
    assert_eq!(ended.code(), 3, "{ended:?}");
    for line in ready {
        let process = line.rsplit_once(' ').unwrap().1;
        assert!(!std::path::Path::new("/proc").join(process).exists(), "{line} is gone");
    }

    let message = std::fs::read_to_string(log).unwrap();
    let (head, tail) = message.split_once('\n').unwrap();
    assert!(head.starts_with("rank 1 (local rank 1) on digits-master-0 failed after "), "{head}");
    assert!(head.ends_with("Z: exit code 3"), "{head}");
    assert_eq!(tail, "  last lines of its standard error:\n    line 3\n    line 4");
    assert!(ended.stderr.ends_with(&format!("muster exec-worker: {message}\n")), "{ended:?}");
    let told = "rank 1 failed: exit code 3; the others get SIGTERM, and 30s to end";
    assert!(ended.stderr.contains(told), "{ended:?}");
    let json: Value = serde_json::from_slice(&std::fs::read(errors).unwrap()).unwrap();
    assert_eq!(json["message"]["message"], head);
    assert_eq!((&json["rank"], &json["exitCode"]), (&1.into(), &3.into()));
    assert_eq!(json["lastLines"], serde_json::json!(["line 3", "line 4"]));
}

#[test]
fn others_may_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::new(folder.path());
    // Rank 0 ends only after rank 1 has failed, and then fails in another way.
    let script =
        r#"if [ $RANK = 1 ]; then echo failing; exit 3; fi; read line <"$GATE"; echo "$line"; exit 5"#;
    let mut command = workers(&["--nproc-per-node", "2", "--on-failure", "continue"], script);
    let mut running = start(command.env("GATE", gate.path()));
    assert_eq!(running.line(), "[1] failing");
    gate.open("went on");
    assert_eq!(running.line(), "[0] went on");
    let ended = running.end();
    assert!(matches!(ended.code(), 3 | 5), "{ended:?}");
    assert!(!ended.stderr.contains("the others get SIGTERM"), "{ended:?}");
}

#[test]
fn death_by_a_signal_is_told_by_name() {
    for (signal, code) in [("SEGV", 139), ("KILL", 137), ("USR1", 138)] {
        let ended = run(&mut workers(&[], &format!("kill -{signal} $$; sleep 600")));
        assert_eq!(ended.code(), code, "{ended:?}");
        assert!(ended.stderr.contains(&format!(": killed by SIG{signal}")), "{ended:?}");
    }
}

#[test]
fn all_workers_start_again_as_often_as_they_may() {
    let script = "echo restart $TORCHELASTIC_RESTART_COUNT of $TORCHELASTIC_MAX_RESTARTS; [ $TORCHELASTIC_RESTART_COUNT = 2 ]";
    let counts = |options: &[&str]| run(&mut workers(options, script));
    let enough = counts(&["--max-restarts", "3"]).succeeded();
    assert_eq!(enough.stdout, "restart 0 of 3\nrestart 1 of 3\nrestart 2 of 3\n");
    assert!(enough.stderr.contains("all workers start again (restart 2 of 3)"), "{enough:?}");
    let few = counts(&["--max-restarts", "1"]);
    assert_eq!((few.code(), few.stdout.as_str()), (1, "restart 0 of 1\nrestart 1 of 1\n"));
    let two = run(workers(&["--nproc-per-node", "2"], script).env("PET_MAX_RESTARTS", "2")).succeeded();
    assert!(two.sorted().contains(&"[0] restart 2 of 2") && two.sorted().contains(&"[1] restart 2 of 2"));
}

#[test]
fn a_worker_tells_its_failure_as_torch_does() {
    let description =
        r#"{"message": {"message": "ValueError: no such digit", "extraInfo": {"py_callstack": "..."}}}"#;
    let script = format!("echo '{description}' >$TORCHELASTIC_ERROR_FILE; exit 1");
    let folder = tempfile::tempdir().unwrap();
    let errors = folder.path().join("error.json");
    let ended = run(workers(&[], &script).env("TORCHELASTIC_ERROR_FILE", &errors));
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("\n  it says: ValueError: no such digit\n"), "{ended:?}");
    let json: Value = serde_json::from_slice(&std::fs::read(errors).unwrap()).unwrap();
    assert_eq!(json["message"]["message"], "ValueError: no such digit");
    assert_eq!(json["message"]["extraInfo"]["py_callstack"], "...");
    assert_eq!(json["message"]["errorCode"], 1);
}

#[test]
fn reports_that_cannot_be_left_are_told_and_change_nothing() {
    let mut command = workers(&["--termination-log", "/proc/nosuch"], "exit 9");
    let ended = run(command.env("TORCHELASTIC_ERROR_FILE", "/dev/full").env("TMPDIR", "/proc/nosuch"));
    assert_eq!(ended.code(), 9);
    assert!(ended.stderr.contains("cannot leave a report for the pod's status"), "{ended:?}");
    assert!(ended.stderr.contains("cannot write the file that TORCHELASTIC_ERROR_FILE names"), "{ended:?}");
}

#[test]
fn what_a_worker_leaves_behind_is_killed() {
    let mut running = start(&mut workers(&[], "sleep 600 & echo $!"));
    let left = Stranger::new(&running.line());
    running.end().succeeded();
    left.wait();
}

#[test]
fn who_left_the_workers_group_holds_up_nobody() {
    let mut running = start(&mut workers(&[], "setsid sleep 600 & echo $!; echo done"));
    let left = Stranger::new(&running.line());
    assert_eq!(running.line(), "done");
    let code = running.exit_code();
    left.kill();
    assert_eq!(code, Some(0));
}
