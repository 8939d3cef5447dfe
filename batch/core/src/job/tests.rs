use std::process::Command;

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
        tasks: 1,
        cpus_per_task: 1,
        gpus: 0,
        memory: None,
        time: None,
        warning: None,
        array: None,
        dependency: None,
        output: None,
        error: None,
        hold: false,
        requeue: false,
        queue: None,
    }
}

/// Runs the pod of a job as its node would, in a folder; returns its exit code and log.
fn run(job: &Job, index: Option<u32>, folder: &std::path::Path) -> (Option<i32>, String) {
    let container = &job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0];
    let words: Vec<String> =
        container.command.iter().flatten().map(|word| word.replace("$$(", "$(")).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder).env("TMPDIR", folder).env("MUSTER_JOB_NODELIST", "n0");
    for variable in container.env.iter().flatten() {
        if let Some(value) = &variable.value {
            command.env(&variable.name, value.replace("$$(", "$("));
        }
    }
    if let Some(index) = index {
        command.env("JOB_COMPLETION_INDEX", index.to_string());
    }
    let ended = command.output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[test]
fn a_script_runs_with_its_arguments_and_slurms_variables() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "#!/bin/sh\necho \"$1 $(echo $2) $SLURM_JOB_ID $SLURM_NTASKS $MUSTER_CPUS_ON_NODE $MINE\"; exit 7\n";
    let request = Request {
        arguments: vec!["a b".to_owned(), "$(x)".to_owned()],
        environment: vec![("MINE".to_owned(), "$(HOME)".to_owned())],
        tasks: 2,
        cpus_per_task: 3,
        ..request(script)
    };
    let job = request.job(17);
    assert_eq!(run(&job, None, folder.path()), (Some(7), "a b $(x) 17 2 6 $(HOME)\n".to_owned()));
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
    let (code, log) = run(&job, Some(4), folder.path());
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
    let script = "#!/bin/sh\ntrap 'echo warned; exit 5' USR1\nwhile :; do sleep 0.01; done\n";
    let warning = Some(crate::limits::Warning { signal: "USR1".to_owned(), seconds: 9 });
    let request = Request { time: Some(10), warning, ..request(script) };
    assert_eq!(request.check(), Ok(()));
    assert_eq!(run(&request.job(1), None, folder.path()), (Some(5), "warned\n".to_owned()));
}

#[test]
fn what_kubernetes_has_a_field_for_is_in_that_field() {
    let request = Request {
        time: Some(90),
        memory: Some("4Gi".to_owned()),
        gpus: 2,
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
    assert_eq!(mounts[0][0]["hostPath"]["path"], mounts[1][0]["mountPath"]);
    let resources = serde_json::json!(pod.containers[0].resources);
    assert_eq!(resources["requests"], serde_json::json!({ "cpu": "1", "memory": "4Gi", GPU: "2" }));
    assert_eq!(resources["limits"], serde_json::json!({ "memory": "4Gi", GPU: "2" }));
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
}
