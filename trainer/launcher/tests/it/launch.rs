//! What workers are started with, and what is refused.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{launcher, run, workers};

/// The environment of two workers of the second of two pods.
const ENVIRONMENT: &str = "\
[R] GROUP_RANK=1
[R] GROUP_WORLD_SIZE=2
[R] KEPT=as it is
[R] LOCAL_RANK=L
[R] LOCAL_WORLD_SIZE=2
[R] MASTER_ADDR=digits-master-0
[R] MASTER_PORT=23456
[R] OMP_NUM_THREADS=7
[R] PET_MASTER_ADDR=digits-master-0
[R] PET_MASTER_PORT=23456
[R] PET_NNODES=2
[R] PET_NODE_RANK=1
[R] PET_NPROC_PER_NODE=2
[R] RANK=R
[R] ROLE_NAME=default
[R] ROLE_RANK=R
[R] ROLE_WORLD_SIZE=4
[R] TORCHELASTIC_MAX_RESTARTS=0
[R] TORCHELASTIC_RESTART_COUNT=0
[R] TORCHELASTIC_RUN_ID=none
[R] TORCHELASTIC_USE_AGENT_STORE=False
[R] TORCH_NCCL_ASYNC_ERROR_HANDLING=1
[R] WORLD_SIZE=4";

#[test]
fn every_rank_has_the_environment_that_torchrun_gives() {
    let mut command = launcher(&["--", "env"]);
    command.envs([
        ("WORLD_SIZE", "4"),
        ("RANK", "1"),
        ("MASTER_ADDR", "digits-master-0"),
        ("MASTER_PORT", "23456"),
        ("PET_MASTER_ADDR", "digits-master-0"),
        ("PET_MASTER_PORT", "23456"),
        ("PET_NODE_RANK", "1"),
        ("PET_NPROC_PER_NODE", "2"),
        ("PET_NNODES", "2"),
        ("OMP_NUM_THREADS", "7"),
        ("KEPT", "as it is"),
    ]);
    let ended = run(&mut command).succeeded();
    let (mut lines, mut error_files) = (Vec::new(), BTreeSet::new());
    for line in ended.sorted() {
        if line.contains("TORCHELASTIC_ERROR_FILE=") {
            error_files.insert(line.split_once('=').unwrap().1);
        } else if !line.contains("] PATH=") {
            lines.push(line);
        }
    }
    let expected = [(2, 0), (3, 1)].map(|(rank, local_rank)| {
        ENVIRONMENT
            .replace("RANK=L", &format!("RANK={local_rank}"))
            .replace("[R]", &format!("[{rank}]"))
            .replace("RANK=R", &format!("RANK={rank}"))
    });
    assert_eq!(lines.join("\n"), expected.join("\n"));
    assert_eq!(error_files.len(), 2, "each has a file of its own");
    assert!(
        error_files.iter().all(|file| !std::path::Path::new(file).parent().unwrap().exists()),
        "and nothing stays"
    );
    assert_eq!(ended.stderr, "");
}

fn processors(list: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.trim().parse::<usize>().unwrap()..=last.trim().parse().unwrap()
    };
    list.split(',').flat_map(range).collect()
}

#[test]
fn workers_have_processors_of_their_own() {
    let script = "while read name value; do case $name in Cpus_allowed_list:) echo $value;; esac; done </proc/self/status";
    let allowed = |options: &[&str]| {
        let ended = run(&mut workers(options, script)).succeeded();
        ended.stdout.lines().map(processors).collect::<Vec<_>>()
    };
    let all = &allowed(&["--pin", "none"])[0];
    let two = allowed(&["--nproc-per-node", "2", "--prefix", "never"]);
    assert_eq!(two.len(), 2);
    if all.len() > 1 {
        assert!(two[0].is_disjoint(&two[1]), "{two:?}");
        assert!(two.iter().all(|own| own.is_subset(all)));
    }
    let crowd = allowed(&["--nproc-per-node", &(all.len() + 1).to_string(), "--prefix", "never"]);
    assert!(crowd.iter().all(|own| own == all), "there are too few to give each one");
    let unbound = allowed(&["--nproc-per-node", "2", "--prefix", "never", "--pin", "none"]);
    assert!(unbound.iter().all(|own| own == all));
}

#[test]
fn threads_are_as_many_as_processors_allow() {
    let alone = run(&mut workers(&[], "echo $OMP_NUM_THREADS")).succeeded();
    let threads: usize = alone.stdout.trim().parse().unwrap();
    assert!((1..=std::thread::available_parallelism().unwrap().get()).contains(&threads));
    let crowd = ["--nproc-per-node", "8", "--prefix", "never"];
    let ended = run(&mut workers(&crowd, "echo $OMP_NUM_THREADS")).succeeded();
    let most = (std::thread::available_parallelism().unwrap().get() / 8).max(1);
    assert!(ended.stdout.lines().all(|line| (1..=most).contains(&line.parse().unwrap())), "{ended:?}");
}

#[test]
fn one_worker_a_gpu() {
    let mut command = workers(&["--nproc-per-node", "gpu"], "echo $LOCAL_RANK of $CUDA_VISIBLE_DEVICES");
    let ended = run(command.env("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b,MIG-c")).succeeded();
    assert_eq!(
        ended.sorted(),
        ["[0] 0 of MIG-a,MIG-b,MIG-c", "[1] 1 of MIG-a,MIG-b,MIG-c", "[2] 2 of MIG-a,MIG-b,MIG-c"]
    );
    let none = run(workers(&[], "true").env("CUDA_VISIBLE_DEVICES", "").env("PET_NPROC_PER_NODE", "gpu"));
    assert_eq!(none.code(), 2);
    assert!(none.stderr.contains("this pod was given no GPU; pass --nproc-per-node"), "{none:?}");
    let auto = run(workers(&[], "true").env("CUDA_VISIBLE_DEVICES", "").env("PET_NPROC_PER_NODE", "auto"));
    auto.succeeded();
}

#[test]
fn a_free_port_is_found() {
    let options = ["--nproc-per-node", "2", "--master-port", "0", "--prefix", "never"];
    let ended = run(&mut workers(&options, "echo $MASTER_ADDR $MASTER_PORT")).succeeded();
    let lines = ended.sorted();
    assert_eq!(lines[0], lines[1]);
    let port = lines[0].strip_prefix("127.0.0.1 ").unwrap();
    assert_ne!(port.parse::<u16>().unwrap(), 0);
}

#[test]
fn what_cannot_be_started_is_refused_with_the_codes_of_shells() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("termination-log");
    let log_option = ["--nproc-per-node", "2", "--termination-log", log.to_str().unwrap()];

    let missing = run(launcher(&log_option).args(["--", "nosuchcommand"]));
    assert_eq!(missing.code(), 127);
    let expected = "nosuchcommand: there is no such command in PATH";
    assert!(missing.stderr.starts_with(&format!("muster exec-worker: {expected}")), "{missing:?}");
    assert_eq!(missing.stderr.lines().count(), 1, "told once, not once a worker");
    assert!(std::fs::read_to_string(&log).unwrap().starts_with(expected));

    let file = folder.path().join("train.sh");
    std::fs::write(&file, "echo trained").unwrap();
    let refused = run(launcher(&[]).arg("--").arg(&file));
    assert_eq!(refused.code(), 126);
    assert!(refused.stderr.contains("cannot be executed: it lacks the permission"), "{refused:?}");
    // A program for another machine is found out only by executing it.
    std::fs::write(&file, "\x7fELF\x01\x01\x01\0not a program").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let foreign = run(launcher(&[]).arg("--").arg(&file));
    assert_ne!(foreign.code(), 0, "{foreign:?}");

    let inconsistent = run(workers(&[], "true").env("PET_NODE_RANK", "0").env("RANK", "1"));
    assert_eq!(inconsistent.code(), 2);
    assert!(inconsistent.stderr.contains("PET_NODE_RANK is \"0\" but RANK is \"1\""), "{inconsistent:?}");
    let restarts = ["--nnodes", "2", "--node-rank", "0", "--master-addr", "a", "--max-restarts", "1"];
    let restarts = run(&mut workers(&restarts, "true"));
    assert_eq!(restarts.code(), 2);
    assert!(
        restarts.stderr.contains("--max-restarts is for jobs of one node or with a rendezvous"),
        "{restarts:?}"
    );
    assert_eq!(run(&mut launcher(&["--grace", "soon", "--", "true"])).code(), 2);
    assert_eq!(run(&mut launcher(&[])).code(), 2);
}

#[test]
fn restarts_of_several_nodes_are_left_to_the_controller() {
    let options = ["--nnodes", "2", "--node-rank", "0", "--master-addr", "127.0.0.1"];
    let ended =
        run(workers(&options, "echo $TORCHELASTIC_MAX_RESTARTS; exit 4").env("PET_MAX_RESTARTS", "3"));
    assert_eq!((ended.code(), ended.stdout.as_str()), (4, "0\n"));
    assert!(
        ended.stderr.contains("PET_MAX_RESTARTS is 3, which is left to the job's controller"),
        "{ended:?}"
    );
}
