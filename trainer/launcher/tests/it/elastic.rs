//! Jobs whose nodes come and go: agents with real workers, a rendezvous in the test's process or in one of them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{self, DEADLINE, Gate, Stranger, run, start, workers};
use crate::running::Running;

/// Waits longer than any test for nodes that must come, and not at all for others.
const PATIENT: &str = "join_timeout=60,last_call_timeout=0";

/// Says where it is, and stays.
const STAYS: &str = r#"echo "of $WORLD_SIZE restart $TORCHELASTIC_RESTART_COUNT"; exec sleep 600"#;

fn service() -> Running {
    Running::open((Ipv4Addr::LOCALHOST, 0).into())
}

/// A node of a job that has so many, with `script` as its workers.
fn agent(service: &Running, nodes: &str, options: &[&str], script: &str) -> Command {
    let mut command = workers(options, script);
    command.envs([
        ("MUSTER_RENDEZVOUS", format!("http://{}", service.address)),
        ("PET_NNODES", nodes.to_owned()),
        ("PET_RDZV_CONF", PATIENT.to_owned()),
    ]);
    command
}

/// Three nodes of a job that may have two, once all three take part.
fn three(service: &Running, script: &str) -> [harness::Running; 3] {
    let mut agents = [(); 3].map(|()| start(&mut agent(service, "2:3", &[], script)));
    for agent in &mut agents {
        agent.line_with("of 3 restart 0");
    }
    agents
}

#[test]
fn a_round_gives_all_workers_their_places() {
    let service = service();
    let script = r#"
        echo "$RANK $LOCAL_RANK $GROUP_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $GROUP_WORLD_SIZE"
        echo "$MASTER_ADDR:$MASTER_PORT $TORCHELASTIC_RUN_ID $TORCHELASTIC_RESTART_COUNT/$TORCHELASTIC_MAX_RESTARTS"
        env | grep ^MUSTER_ || true"#;
    let options = ["--nproc-per-node", "2", "--max-restarts", "3", "--prefix", "never"];
    let agents = [(); 2].map(|()| {
        let mut agent = agent(&service, "2:2", &options, script);
        start(agent.env("PET_RDZV_ID", "digits").env("MUSTER_RANKS", "2:2").env("MUSTER_REPLICAS", "2"))
    });
    let ends = agents.map(|agent| agent.end().succeeded());
    let mut lines: Vec<_> = ends.iter().flat_map(harness::Ended::sorted).collect();
    lines.sort_unstable();
    let (leaders, places): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.contains(':'));
    assert_eq!(places, ["0 0 0 4 2 2", "1 1 0 4 2 2", "2 0 1 4 2 2", "3 1 1 4 2 2"]);
    let place = leaders[0].strip_suffix(" digits 0/3").unwrap();
    assert!(leaders.iter().all(|line| *line == leaders[0]) && leaders.len() == 4, "{leaders:?}");
    let port = place.strip_prefix("127.0.0.1:").unwrap();
    assert_ne!(port.parse::<u16>().unwrap(), 0);
}

#[test]
fn a_killed_worker_is_one_restart_for_all_nodes() {
    let service = service();
    let script = r#"
        echo "restart $TORCHELASTIC_RESTART_COUNT of $WORLD_SIZE"
        [ $TORCHELASTIC_RESTART_COUNT = 2 ] && exit 0
        echo $$; exec sleep 600"#;
    let mut agents = [(); 2].map(|()| start(&mut agent(&service, "2:2", &["--max-restarts", "2"], script)));
    for (victim, count) in [(0, 0), (1, 1)] {
        let workers = agents.each_mut().map(|agent| {
            assert_eq!(agent.line(), format!("restart {count} of 2"));
            Stranger::new(&agent.line())
        });
        workers[victim].kill();
        workers.iter().for_each(Stranger::wait);
    }
    for agent in agents {
        let ended = agent.end().succeeded();
        assert!(ended.stdout.ends_with("restart 2 of 2\n"), "{ended:?}");
        assert_eq!(ended.stderr.matches(" failed after ").count(), 1, "{ended:?}");
    }
}

#[test]
fn one_failure_too_many_ends_all_nodes_and_is_reported_by_all() {
    let service = service();
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::new(folder.path());
    let script = r#"
        echo ready
        [ -z "$GATE" ] && exec sleep 600
        read go <"$GATE"; echo no such digit >&2; exit 3"#;
    let log = folder.path().join("termination-log");
    let options = ["--termination-log", log.to_str().unwrap()];
    let mut other = start(agent(&service, "2:2", &options, script).env("HOSTNAME", "digits-worker-0"));
    let mut failing = agent(&service, "2:2", &[], script);
    let mut failing = start(failing.env("GATE", gate.path()).env("HOSTNAME", "w-1"));
    assert_eq!([other.line(), failing.line()], ["ready", "ready"]);
    gate.open("go");
    let failed = failing.end();
    assert_eq!(failed.code(), 3, "{failed:?}");
    assert!(
        failed.stderr.contains("exit code 3\n  last lines of its standard error:\n    no such digit"),
        "{failed:?}"
    );
    let other = other.end();
    assert_eq!(other.code(), 1, "{other:?}");
    let report = std::fs::read_to_string(log).unwrap();
    let told = "the training has failed: rank ";
    assert!(report.starts_with(told) && report.contains(" on w-1 failed after "), "{report}");
    assert!(other.stderr.contains(told), "{other:?}");
}

#[test]
fn a_lost_node_is_no_restart_even_if_all_others_fail_by_it() {
    let service = service();
    let folder = tempfile::tempdir().unwrap();
    let pipe = Gate::new(folder.path());
    // Those who stay notice the death of the other as ranks do whose connection breaks, and may not fail even once.
    let script = r#"
        echo "of $WORLD_SIZE restart $TORCHELASTIC_RESTART_COUNT"
        if [ $WORLD_SIZE = 3 ]; then
            if [ -n "$VICTIM" ]; then exec 9>"$PIPE"; exec sleep 600; fi
            read line <"$PIPE"; exit 9
        fi
        exec sleep 600"#;
    let start = |victim: &str| {
        start(agent(&service, "2:3", &[], script).env("PIPE", pipe.path()).env("VICTIM", victim))
    };
    let mut agents = [start(""), start(""), start("yes")];
    for agent in &mut agents {
        agent.line_with("of 3 restart 0");
    }
    let [mut first, mut second, victim] = agents;
    victim.kill();
    for agent in [&mut first, &mut second] {
        agent.line_with("of 2 restart 0");
    }
}

#[test]
fn a_node_that_is_asked_to_go_is_no_restart() {
    let service = service();
    let [mut first, mut second, leaving] = three(&service, STAYS);
    leaving.signal(Signal::TERM);
    assert_eq!(leaving.end().code(), 143);
    for agent in [&mut first, &mut second] {
        agent.line_with("of 2 restart 0");
    }
    // With one the job cannot go on: the last one waits, and can still be asked to go.
    second.signal(Signal::TERM);
    assert_eq!(second.end().code(), 143);
    first.signal(Signal::TERM);
    let ended = first.end();
    assert_eq!(ended.code(), 143, "{ended:?}");
    assert!(!ended.stderr.contains("start again"), "{ended:?}");
}

#[test]
fn a_node_that_comes_joins_in_a_new_round() {
    let service = service();
    let mut agents = vec![start(&mut agent(&service, "1:3", &[], STAYS))];
    assert_eq!(agents[0].line(), "of 1 restart 0");
    for size in 2..=3 {
        agents.push(start(&mut agent(&service, "1:3", &[], STAYS)));
        for agent in &mut agents {
            assert_eq!(agent.line(), format!("of {size} restart 0"));
        }
    }
}

#[test]
fn a_node_that_ended_well_waits_for_the_others() {
    let service = service();
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::new(folder.path());
    let script = r#"
        echo "restart $TORCHELASTIC_RESTART_COUNT"
        [ -z "$GATE" ] && exit 0
        read code <"$GATE"; exit $code"#;
    let options = ["--max-restarts", "1"];
    let mut early = start(&mut agent(&service, "2:2", &options, script));
    let mut late = start(agent(&service, "2:2", &options, script).env("GATE", gate.path()));
    assert_eq!([early.line(), late.line()], ["restart 0", "restart 0"]);
    gate.open("5");
    assert_eq!([early.line(), late.line()], ["restart 1", "restart 1"], "both begin again");
    gate.open("0");
    early.end().succeeded();
    late.end().succeeded();
    // Whoever comes now finds that all is done.
    let late = run(&mut agent(&service, "2:2", &[], "echo started")).succeeded();
    assert_eq!(late.stdout, "");
}

#[test]
fn too_few_nodes_are_waited_for_and_then_told() {
    let service = service();
    let lonely = run(agent(&service, "2:3", &[], "true").env("PET_RDZV_CONF", "join_timeout=0.2"));
    assert_eq!(lonely.code(), 1, "{lonely:?}");
    let told = format!(
        "no place in the training within 200ms: the rendezvous at http://{} still waits for other ranks",
        service.address
    );
    assert!(lonely.stderr.contains(&told), "{lonely:?}");
    let mut nowhere = workers(&["--rdzv-conf", "join_timeout=0.2"], "true");
    let nowhere = run(nowhere.envs([("MUSTER_RENDEZVOUS", "http://127.0.0.1:9"), ("PET_NNODES", "1:2")]));
    assert_eq!(nowhere.code(), 1, "{nowhere:?}");
    assert!(
        nowhere.stderr.contains("the rendezvous at http://127.0.0.1:9 cannot be reached: "),
        "{nowhere:?}"
    );
}

/// An address that no other test has, with a port that is free there.
fn own_endpoint() -> String {
    let [.., a, b] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 117, a, b);
    let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
    format!("{address}:{port}")
}

#[test]
fn a_node_holds_the_rendezvous_and_another_takes_it_over() {
    let endpoint = own_endpoint();
    let options = ["--nnodes", "2:2", "--rdzv-endpoint", &endpoint, "--rdzv-conf", PATIENT];
    let script = "echo of $WORLD_SIZE; echo $$; exec sleep 600";
    let mut holder = start(&mut workers(&options, script));
    wait_for_listener(&endpoint);
    let mut other = start(&mut workers(&options, script));
    assert_eq!([holder.line(), other.line()], ["of 2", "of 2"]);
    let worker = Stranger::new(&other.line());
    holder.kill();
    // As a rank does whose peer has gone; it is no restart, since the peer has.
    worker.kill();
    let mut third = start(&mut workers(&options, script));
    assert_eq!([third.line(), other.line()], ["of 2", "of 2"]);
}

/// The name of the holder may lead to where it was before, or to nobody, at first.
#[test]
fn a_node_that_waits_takes_the_rendezvous_over_once_nobody_answers() {
    let endpoint = own_endpoint();
    let stranger = TcpListener::bind(&endpoint).unwrap();
    let options = ["--nnodes", "1:2", "--rdzv-endpoint", &endpoint, "--rdzv-conf", PATIENT];
    let node = start(&mut workers(&options, "echo of $WORLD_SIZE"));
    // It holds no rendezvous, since somebody listens there, and waits for an answer.
    let asked = stranger.accept().unwrap();
    drop((stranger, asked));
    assert_eq!(node.end().succeeded().stdout, "of 1\n");
}

/// Until somebody listens there.
fn wait_for_listener(endpoint: &str) {
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect(endpoint).is_err() {
        assert!(Instant::now() < until, "nobody listens at {endpoint}");
        std::thread::yield_now();
    }
}

#[test]
fn the_holder_of_the_rendezvous_sees_all_others_off() {
    let endpoint = own_endpoint();
    let options = ["--nnodes", "3:3", "--rdzv-endpoint", &endpoint];
    let agents = [(); 3].map(|()| start(&mut workers(&options, "echo done")));
    for agent in agents {
        assert_eq!(agent.end().succeeded().stdout, "done\n");
    }
}
