use std::process::Command;

use k8s_openapi::api::core::v1::PodSpec;
use muster_trainer_api::MpiJob;

use super::*;

fn request(script: &str) -> Request {
    Request {
        script: script.to_owned(),
        arguments: Vec::new(),
        name: "sweep".to_owned(),
        user: "eve".to_owned(),
        image: "host".to_owned(),
        folder: None,
        folders: Vec::new(),
        environment: Vec::new(),
        submit_host: "desk".to_owned(),
        layout: Layout::new(None, None, None).unwrap(),
        cpus_per_task: 1,
        gpus: 0,
        gpu_models: Vec::new(),
        memory: None,
        time: None,
        warning: None,
        array: None,
        dependency: None,
        kill_on_invalid_dependency: false,
        output: None,
        error: None,
        hold: false,
        requeue: false,
        interactive: false,
        queue: None,
    }
}

/// Runs the pod of a script as its node would, in a folder; returns its exit code and log.
fn run(pod: &PodSpec, more: &[(&str, &str)], folder: &std::path::Path) -> (Option<i32>, String) {
    let container = &pod.containers[0];
    let words: Vec<String> = container.command.iter().flatten().map(|word| word.replace("$$", "$")).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder).env("TMPDIR", folder);
    command.env("MUSTER_JOB_NODELIST", "n0").env("SLURMD_NODENAME", "n0");
    for variable in container.env.iter().flatten() {
        if let Some(value) = &variable.value {
            command.env(&variable.name, value.replace("$$", "$"));
        }
    }
    let ended = command.envs(more.iter().copied()).output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// A search path on which `sleep` writes down how long it was to last, and ends when the script has set its trap.
fn path_of_a_sleep_that_waits_for_the_script(folder: &std::path::Path) -> String {
    use std::os::unix::fs::PermissionsExt;

    let sleep = folder.join("sleep");
    std::fs::write(&sleep, "#!/bin/sh\necho $1 >slept\nwhile [ ! -e trapped ]; do /bin/sleep 0.01; done\n")
        .unwrap();
    std::fs::set_permissions(&sleep, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

fn pod(job: &Job) -> &PodSpec {
    job.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

/// The pods of a replica type.
fn replica<'a>(job: &'a MpiJob, type_: &str) -> &'a PodSpec {
    job.spec.mpi_replica_specs[type_].template.spec.as_ref().unwrap()
}

#[test]
fn a_script_runs_with_its_arguments_and_slurms_variables() {
    let folder = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\necho \"$1 $(echo $2) $SLURM_JOB_ID $SLURM_NTASKS $MUSTER_CPUS_ON_NODE $MINE\"; kill -0 $$ && exit 7\n";
    let request = Request {
        arguments: vec!["a b".to_owned(), "$(x)".to_owned()],
        environment: vec![("MINE".to_owned(), "$(HOME) $$".to_owned())],
        layout: Layout::new(None, Some(2), None).unwrap(),
        cpus_per_task: 3,
        ..request(script)
    };
    let job = request.job(17);
    assert_eq!(run(pod(&job), &[], folder.path()), (Some(7), "a b $(x) 17 2 6 $(HOME) $$\n".to_owned()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the script's file is gone");
    assert_eq!(job.metadata.name.as_deref(), Some("batch-17"));
}

#[test]
fn a_task_of_an_array_knows_which_it_is_and_has_files_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let request = Request {
        array: Some("0-4:2,10-15:5%2".parse().unwrap()),
        output: Some("%x-%A-%a-%j-%N-%%.out".to_owned()),
        error: Some("%a.err".to_owned()),
        ..request("#!/bin/sh\necho $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT; echo wrong >&2\n")
    };
    let job = request.job(40);
    let spec = job.spec.as_ref().unwrap();
    assert_eq!(
        (spec.completions, spec.parallelism, spec.backoff_limit_per_index),
        (Some(5), Some(2), Some(0))
    );
    assert_eq!(request.numbers(), 5);
    let (code, log) = run(pod(&job), &[("JOB_COMPLETION_INDEX", "4")], folder.path());
    assert_eq!(
        (code, log.as_str()),
        (Some(0), "muster: the output of job 44 goes to sweep-40-15-44-n0-%.out\n")
    );
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        (read("sweep-40-15-44-n0-%.out"), read("15.err")),
        ("15 of 5\n".to_owned(), "wrong\n".to_owned())
    );
}

#[test]
fn a_warning_reaches_the_script_and_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    // It ends by itself once it has been warned.
    let script =
        "#!/bin/sh\ntrap 'echo warned; exit 5' USR1\n: >trapped\nwhile :; do /bin/sleep 0.01; done\n";
    let warning = Some(crate::limits::Warning { signal: "USR1".to_owned(), seconds: 9 });
    let request = Request { time: Some(100), warning, ..request(script) };
    assert_eq!(request.check(), Ok(()));
    let job = request.job(1);
    let path = path_of_a_sleep_that_waits_for_the_script(folder.path());
    assert_eq!(run(pod(&job), &[("PATH", &path)], folder.path()), (Some(5), "warned\n".to_owned()));
}

#[test]
fn what_kubernetes_has_a_field_for_is_in_that_field() {
    let request = Request {
        time: Some(90),
        memory: Some("4Gi".to_owned()),
        gpus: 2,
        gpu_models: vec!["NVIDIA-A100-SXM4-80GB".to_owned()],
        kill_on_invalid_dependency: true,
        hold: true,
        requeue: true,
        queue: Some("research".to_owned()),
        folders: vec!["/srv/data".to_owned()],
        dependency: Some("afterok:3".parse().unwrap()),
        ..request("#!/bin/sh\n")
    };
    let job = request.job(5);
    let spec = job.spec.as_ref().unwrap();
    assert_eq!((spec.suspend, spec.backoff_limit), (Some(true), Some(0)));
    assert_eq!(spec.pod_failure_policy.as_ref().unwrap().rules[0].action, "Ignore");
    let annotations = job.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        (annotations[names::DEPENDENCY].as_str(), annotations[names::HOLD].as_str()),
        ("afterok:3", "user")
    );
    assert_eq!(job.metadata.labels.as_ref().unwrap()[QUEUE], "research");
    let pod = spec.template.spec.as_ref().unwrap();
    assert_eq!((pod.active_deadline_seconds, pod.restart_policy.as_deref()), (Some(90), Some("Never")));
    let mounts = serde_json::json!([&pod.volumes, &pod.containers[0].volume_mounts]);
    assert_eq!(mounts[0][1]["hostPath"]["path"], mounts[1][1]["mountPath"]);
    let resources = serde_json::json!(pod.containers[0].resources);
    assert_eq!(
        resources["requests"],
        serde_json::json!({ "cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "2" })
    );
    let models = serde_json::json!(pod.affinity);
    let terms =
        &models["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], serde_json::json!(["NVIDIA-A100-SXM4-80GB"]));
    assert_eq!(annotations[names::KILL_ON_INVALID_DEPENDENCY], "yes");
    assert_eq!(resources["limits"], serde_json::json!({ "memory": "4Gi", "nvidia.com/gpu": "2" }));
}

#[test]
fn what_cannot_run_is_refused() {
    assert_eq!(request("echo").check(), Err(RequestError::Interpreter));
    let large = format!("#!/bin/sh\n{}", "#".repeat(MOST_SCRIPT_BYTES));
    assert_eq!(request(&large).check(), Err(RequestError::TooLarge(large.len())));
    let warning = Some(crate::limits::Warning { signal: "USR1".to_owned(), seconds: 60 });
    let early = Request { warning, ..request("#!/bin/sh\n") };
    assert_eq!(early.check(), Err(RequestError::WarningWithoutTime));
    let late = Request { time: Some(60), ..early };
    assert_eq!(late.check(), Err(RequestError::LateWarning { seconds: 60, time: 60 }));
    let array = Some("0-3".parse().unwrap());
    let layout = Layout::new(Some(2), None, None).unwrap();
    let several = Request { layout, array, ..request("#!/bin/sh\n") };
    assert_eq!(several.check(), Err(RequestError::ArrayOfSeveralNodes(2)));
}

#[test]
fn a_pod_carries_once_what_slurm_and_we_call_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\nenv | grep ^SLURM_ | sort\n";
    let environment = vec![("SLURM_MINE".to_owned(), "its own".to_owned())];
    let request = Request { environment, name: "a \"b\" $(c) $D".to_owned(), ..request(script) };
    let job = request.job(1);
    let names = pod(&job).containers[0].env.iter().flatten().map(|variable| variable.name.as_str());
    let slurm: Vec<&str> = names.filter(|name| name.starts_with("SLURM_")).collect();
    assert_eq!(
        slurm,
        ["SLURM_MINE", "SLURM_NODELIST", "SLURM_JOBID", "SLURM_NNODES", "SLURM_NPROCS", "SLURM_PRIO_PROCESS"]
    );
    let (_, log) = run(pod(&job), &[], folder.path());
    let varies = |line: &str| ["TASK_PID", "UID", "GID", "TIME"].iter().any(|name| line.contains(name));
    let lines: Vec<&str> = log.lines().filter(|line| !varies(line)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_script_knows_who_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\n[ \"$SLURM_JOB_UID $SLURM_JOB_GID\" = \"$(id -u) $(id -g)\" ] && exit 3\n";
    let (code, log) = run(pod(&request(script).job(1)), &[], folder.path());
    assert_eq!((code, log.as_str()), (Some(3), ""));
}

#[test]
fn time_counts_from_the_start_of_the_pod() {
    let folder = tempfile::tempdir().unwrap();
    // It came into being a minute before the script.
    let mark = folder.path().join("mark");
    let began = std::time::SystemTime::now() - std::time::Duration::from_mins(1);
    std::fs::File::create(&mark).unwrap().set_modified(began).unwrap();
    let seconds = began.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let script = "#!/bin/sh\ntrap 'echo $SLURM_JOB_START_TIME $SLURM_JOB_END_TIME; exit 5' USR1\n\
                  : >trapped\nwhile :; do /bin/sleep 0.01; done\n";
    let warning = Some(crate::limits::Warning { signal: "USR1".to_owned(), seconds: 60 });
    let job = Request { time: Some(7200), warning, ..request(script) }.job(1);
    let path = path_of_a_sleep_that_waits_for_the_script(folder.path());
    let more = [("MUSTER_START_MARK", mark.to_str().unwrap()), ("PATH", &path)];
    let (code, log) = run(pod(&job), &more, folder.path());
    assert_eq!((code, log), (Some(5), format!("{seconds} {}\n", seconds + 7200)));
    let slept: u64 = std::fs::read_to_string(folder.path().join("slept")).unwrap().trim().parse().unwrap();
    assert!((6000..=7200 - 60 - 60).contains(&slept), "{slept}");
}

#[test]
fn several_nodes_are_the_workers_of_an_mpi_job() {
    let request = Request {
        layout: Layout::new(Some(3), Some(5), None).unwrap(),
        cpus_per_task: 4,
        gpus: 8,
        memory: Some("4Gi".to_owned()),
        time: Some(90),
        hold: true,
        folders: vec!["/srv/data".to_owned()],
        queue: Some("research".to_owned()),
        ..request("#!/bin/sh\n")
    };
    let Work::MpiJob(job) = request.work(7) else { panic!("one node") };
    assert_eq!(job.metadata.name.as_deref(), Some("batch-7"));
    assert_eq!((job.spec.run_policy.suspend, job.spec.slots_per_worker), (Some(true), Some(2)));
    assert!(!job.spec.is_v2(), "its time to live is that of the launcher alone otherwise");
    let (launcher, node) = (replica(&job, "Launcher"), replica(&job, "Worker"));
    assert_eq!(job.spec.mpi_replica_specs["Worker"].replicas, Some(3));
    assert!(launcher.containers[0].resources.is_none() && node.containers[0].command.is_none());
    assert_eq!((launcher.active_deadline_seconds, node.active_deadline_seconds), (Some(90), None));
    let resources = serde_json::json!(node.containers[0].resources);
    assert_eq!(
        resources["requests"],
        serde_json::json!({ "cpu": "8", "memory": "4Gi", "nvidia.com/gpu": "8" })
    );
    let value = |pod: &PodSpec, name: &str| {
        let variable = pod.containers[0].env.iter().flatten().find(|variable| variable.name == name);
        variable.and_then(|variable| variable.value.clone()).unwrap_or_default()
    };
    for (name, expected) in [
        ("SLURM_NNODES", "3"),
        ("SLURM_JOB_NUM_NODES", "3"),
        ("SLURM_NTASKS", "5"),
        ("SLURM_TASKS_PER_NODE", "2(x2),1"),
        ("SLURM_JOB_CPUS_PER_NODE", "8(x3)"),
        ("SLURM_JOB_NODELIST", "batch-7-worker-[0-2]"),
        ("SLURM_MEM_PER_NODE", "4096"),
        ("SLURM_GPUS", "24"),
        ("SLURM_SUBMIT_HOST", "desk"),
    ] {
        assert_eq!((value(launcher, name), value(node, name)), (expected.to_owned(), expected.to_owned()));
    }
}

#[test]
fn every_mpirun_is_told_the_hosts_and_no_slurm_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hostfile");
    std::fs::write(&hosts, "a.j.n.svc slots=2\nb.j.n.svc slots=2\n").unwrap();
    let script = "#!/bin/sh\ncat $OMPI_MCA_orte_default_hostfile $HYDRA_HOST_FILE\n\
                  echo $HYDRA_LAUNCHER $HYDRA_LAUNCHER_EXEC $OMPI_MCA_plm\n";
    let layout = Layout::new(Some(2), Some(3), None).unwrap();
    let job = Request { layout, ..request(script) }.mpi_job(7);
    let told = [
        ("OMPI_MCA_orte_default_hostfile", hosts.to_str().unwrap()),
        ("OMPI_MCA_plm_rsh_agent", "/bin/agent"),
    ];
    let (code, log) = run(replica(&job, "Launcher"), &told, folder.path());
    let expected = "a.j.n.svc slots=2\nb.j.n.svc slots=1\na.j.n.svc:2\nb.j.n.svc:1\nssh /bin/agent ^slurm\n";
    assert_eq!((code, log.as_str()), (Some(0), expected));
    let alone = Request { layout: Layout::new(None, Some(4), None).unwrap(), ..request(script) }.job(7);
    let (_, log) = run(pod(&alone), &[], folder.path());
    assert_eq!(log, "localhost slots=4\nlocalhost:4\nfork ^slurm\n");
}
