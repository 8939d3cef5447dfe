//! What JobSets look like under each policy.

use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::train_job::{TrainJob, TrainingRuntime};
use muster_trainer_core::GangScheduler;
use muster_trainer_core::train_job::{Rendered, render};
use serde_json::{Value, json};

use super::world::{job, runtime};

fn rendered(spec: Value, runtime: Value) -> Rendered {
    rendered_job(job(spec), runtime)
}

fn rendered_job(job: Value, runtime: Value) -> Rendered {
    let job: TrainJob = serde_json::from_value(job).unwrap();
    let runtime: TrainingRuntime = serde_json::from_value(runtime).unwrap();
    render(&job, &runtime.spec, &GangScheduler::Muster)
}

/// The variables of the container `node` of a group, as NAME=VALUE.
fn variables(set: &JobSet, group: usize) -> Vec<String> {
    let pod = set.spec.replicated_jobs[group].template.spec.clone().unwrap().template.spec.unwrap();
    let variables = pod.containers[0].env.clone().unwrap_or_default();
    let text = |variable: k8s_openapi::api::core::v1::EnvVar| {
        let value =
            variable.value.unwrap_or_else(|| variable.value_from.unwrap().field_ref.unwrap().field_path);
        format!("{}={value}", variable.name)
    };
    variables.into_iter().map(text).collect()
}

#[test]
fn a_torch_job_in_full() {
    let mut runtime = runtime(json!({"numNodes": 1, "torch": {}}));
    runtime["spec"]["template"]["metadata"] = json!({"labels": {"team": "vision"}});
    let spec = json!({"trainer": {
        "image": "busybox", "command": ["torchrun"], "args": ["train.py"], "numNodes": 3,
        "env": [{"name": "EPOCHS", "value": "2"}], "resourcesPerNode": {"requests": {"cpu": "1500m"}},
    }});
    insta::assert_yaml_snapshot!(rendered(spec, runtime).jobset);
}

/// Complaint 6: a preempted pod comes back and is no failure of the code.
#[test]
fn disruptions_are_forgiven_where_kubernetes_can() {
    let rules = |pod: Value, own: Value| {
        let mut runtime = runtime(json!({"torch": {}}));
        let job = &mut runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"];
        job["podFailurePolicy"] = own;
        job["template"]["spec"]["restartPolicy"] = pod;
        let set = rendered(json!({}), runtime).jobset;
        set.spec.replicated_jobs[0]
            .template
            .spec
            .clone()
            .unwrap()
            .pod_failure_policy
            .map(|policy| json!(policy.rules))
    };
    let ignored =
        json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]);
    assert_eq!(rules(json!("Never"), Value::Null), Some(ignored.clone()));
    assert_eq!(rules(json!("OnFailure"), Value::Null), None, "Kubernetes refuses such rules there");
    assert_eq!(rules(Value::Null, Value::Null), Some(ignored), "and Never is said");
    let own = json!([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}]);
    assert_eq!(rules(json!("Never"), json!({"rules": own})), Some(own));
}

#[test]
fn torchrun_is_told_how_many_processes_run_on_a_node() {
    let processes = |trainer: Value| {
        let set = rendered(json!({"trainer": trainer}), runtime(json!({"torch": {}}))).jobset;
        let all = variables(&set, 0);
        all.into_iter().find_map(|v| v.strip_prefix("PET_NPROC_PER_NODE=").map(str::to_owned)).unwrap()
    };
    assert_eq!(processes(json!({})), "1");
    assert_eq!(processes(json!({"resourcesPerNode": {"limits": {"cpu": 4}}})), "4");
    assert_eq!(processes(json!({"resourcesPerNode": {"limits": {"cpu": 8, "nvidia.com/gpu": 2}}})), "auto");
    assert_eq!(
        processes(json!({"numProcPerNode": 3, "resourcesPerNode": {"limits": {"nvidia.com/gpu": 2}}})),
        "3"
    );
}

#[test]
fn other_containers_that_the_runtime_names_get_torchs_variables() {
    let targets = json!([{"jobName": "node", "containerNames": ["side"]}]);
    let mut runtime = runtime(json!({"torch": {"envInjection": {"targets": targets}}}));
    let containers = &mut runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
        ["spec"]["containers"];
    *containers = json!([{"name": "side"}, {"name": "node"}, {"name": "other"}]);
    let set = rendered(json!({}), runtime).jobset;
    assert!(
        variables(&set, 0)
            .iter()
            .any(|variable| variable.starts_with("PET_MASTER_ADDR=train-node-0-0.train"))
    );
    let pod = set.spec.replicated_jobs[0].template.spec.clone().unwrap().template.spec.unwrap();
    assert!(pod.containers[2].env.is_none());
}

#[test]
fn jax_and_xgboost_are_told_where_they_meet() {
    let spec = json!({"trainer": {"numNodes": 2, "resourcesPerNode": {"limits": {"nvidia.com/gpu": 4}}}});
    let jax = rendered(spec.clone(), runtime(json!({"jax": {}}))).jobset;
    let xgboost = rendered(spec, runtime(json!({"xgboost": {}}))).jobset;
    insta::assert_yaml_snapshot!([variables(&jax, 0), variables(&xgboost, 0)]);
}

fn mpi_runtime() -> Value {
    let mut runtime = runtime(json!({"numNodes": 2, "mpi": {
        "numProcPerNode": 2, "mpiImplementation": "OpenMPI", "sshAuthMountPath": "/home/mpiuser/.ssh",
        "runLauncherAsNode": true,
    }}));
    let groups = &mut runtime["spec"]["template"]["spec"]["replicatedJobs"];
    let mut launcher = groups[0].clone();
    launcher["name"] = json!("launcher");
    launcher["dependsOn"] = json!([{"name": "node", "status": "Ready"}]);
    groups[0]["template"]["metadata"] = json!({});
    groups.as_array_mut().unwrap().push(launcher);
    runtime
}

#[test]
fn an_mpi_job_has_hosts_keys_and_variables_of_both_generations_of_open_mpi() {
    let spec =
        json!({"trainer": {"numNodes": 3, "command": ["mpirun"], "env": [{"name": "A", "value": "b"}]}});
    let Rendered { jobset, hostfile, ssh_secret, .. } = rendered(spec, mpi_runtime());
    assert_eq!(
        hostfile.unwrap().data.unwrap()["hostfile"],
        "train-launcher-0-0.train slots=2\ntrain-node-0-0.train slots=2\ntrain-node-0-1.train slots=2\n"
    );
    assert_eq!(ssh_secret.as_deref(), Some("train-mpi-ssh-auth"));
    assert_eq!(variables(&jobset, 0), ["A=b"], "the ranks get the job's variables, too");
    insta::assert_yaml_snapshot!(jobset.spec.replicated_jobs[1]);
}

/// Complaint 12: workers of several kinds in one program.
#[test]
fn an_mpi_job_has_workers_of_all_groups_that_the_runtime_marks() {
    let mut runtime = mpi_runtime();
    let groups = runtime["spec"]["template"]["spec"]["replicatedJobs"].as_array_mut().unwrap();
    let mut large = groups[0].clone();
    large["name"] = json!("large");
    large["replicas"] = json!(2);
    large["template"]["metadata"] = json!({"annotations": {"muster.dev/mpi-slots": "8"}});
    large["template"]["spec"]["parallelism"] = json!(2);
    large["template"]["spec"]["completions"] = json!(2);
    let mut bystander = groups[0].clone();
    bystander["name"] = json!("bystander");
    groups.extend([large, bystander]);
    let resources = json!({"limits": {"cpu": "1"}});
    let spec = json!({"trainer": {
        "numNodes": 2, "image": "own", "resourcesPerNode": resources, "env": [{"name": "A", "value": "b"}],
    }});
    let Rendered { jobset, hostfile, .. } = rendered(spec, runtime);
    assert_eq!(
        hostfile.unwrap().data.unwrap()["hostfile"],
        "train-launcher-0-0.train slots=2\ntrain-node-0-0.train slots=2\n\
         train-large-0-0.train slots=8\ntrain-large-0-1.train slots=8\n\
         train-large-1-0.train slots=8\ntrain-large-1-1.train slots=8\n"
    );
    let pods = |group: usize| {
        let job = jobset.spec.replicated_jobs[group].template.spec.clone().unwrap();
        let pod = job.template.spec.unwrap();
        let keys = pod.volumes.iter().flatten().any(|volume| volume.name == "mpi-ssh-auth");
        let node = &pod.containers[0];
        (job.parallelism, keys, node.image.clone(), node.resources.is_some(), variables(&jobset, group))
    };
    assert_eq!(pods(0), (Some(1), true, Some("own".into()), true, vec!["A=b".into()]));
    assert_eq!(pods(2), (Some(2), true, Some("own".into()), false, vec!["A=b".into()]));
    assert_eq!((pods(3).1, pods(3).4), (false, Vec::new()));
}

/// Complaint 1: nodes that come and go.
#[test]
fn a_pytorch_job_may_go_on_with_fewer_nodes() {
    let elastic = |spec: Value, runtime: Value| {
        let mut job = job(spec);
        job["metadata"]["annotations"] = json!({"muster.dev/min-nodes": "2"});
        rendered_job(job, runtime)
    };
    let set = elastic(json!({"trainer": {"numNodes": 4}}), runtime(json!({"torch": {}}))).jobset;
    insta::assert_yaml_snapshot!(variables(&set, 0));
    let spec = set.spec.replicated_jobs[0].template.spec.clone().unwrap();
    let rules = spec.success_policy.unwrap().rules;
    assert_eq!(rules[0].succeeded_indexes.as_deref(), Some("0"));
    let marks = spec.template.metadata.unwrap().annotations.unwrap();
    assert_eq!(marks["muster.dev/gang"], "trainjob.train");
    assert_eq!(marks["muster.dev/gang-min-available"], "2");
    assert!(!marks.contains_key("muster.dev/gang-by"));

    let patient = json!({"trainer": {"numNodes": 4, "env": [{"name": "PET_MAX_RESTARTS", "value": "100"}]}});
    let set = elastic(patient, runtime(json!({"torch": {}}))).jobset;
    assert!(variables(&set, 0).contains(&"PET_MAX_RESTARTS=100".to_owned()));

    let mut coscheduled = runtime(json!({"torch": {}}));
    coscheduled["spec"]["podGroupPolicy"] = json!({"coscheduling": {}});
    let group = elastic(json!({"trainer": {"numNodes": 4}}), coscheduled).pod_group.unwrap();
    assert_eq!(group["spec"]["minMember"], 2);

    // Where the job has a rendezvous of its own, that is the one.
    let own = json!([{"name": "PET_RDZV_BACKEND", "value": "etcd-v2"}, {"name": "PET_RDZV_ENDPOINT", "value": "etcd:2379"}]);
    let set = elastic(json!({"trainer": {"numNodes": 4, "env": own}}), runtime(json!({"torch": {}}))).jobset;
    let told = variables(&set, 0);
    assert!(told.contains(&"PET_RDZV_ENDPOINT=etcd:2379".to_owned()), "{told:?}");
    assert!(told.contains(&"PET_RDZV_BACKEND=etcd-v2".to_owned()), "{told:?}");
    assert!(told.contains(&"PET_RDZV_ID=train".to_owned()), "{told:?}");

    // All nodes are the fewest: nothing is elastic.
    let set = elastic(json!({"trainer": {"numNodes": 2}}), runtime(json!({"torch": {}}))).jobset;
    assert!(variables(&set, 0).contains(&"PET_NNODES=2".to_owned()));
    assert!(set.spec.replicated_jobs[0].template.spec.clone().unwrap().success_policy.is_none());
}

/// A runtime as shipped starts all nodes again when one is lost, which those of an elastic job can do without.
#[test]
fn a_lost_node_is_replaced_where_the_others_go_on() {
    let mut runtime = runtime(json!({"torch": {}}));
    let spec = &mut runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"];
    let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
    spec["backoffLimit"] = json!(0);
    spec["podFailurePolicy"] = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}},
        {"action": "FailJob", "onPodConditions": disrupted},
    ]});
    let of = |annotations: Value| {
        let mut job = job(json!({"trainer": {"numNodes": 4}}));
        job["metadata"]["annotations"] = annotations;
        let set = rendered_job(job, runtime.clone()).jobset;
        let spec = set.spec.replicated_jobs[0].template.spec.clone().unwrap();
        let actions = spec.pod_failure_policy.unwrap().rules.into_iter().map(|rule| rule.action);
        (spec.backoff_limit, actions.collect::<Vec<_>>())
    };
    assert_eq!(of(json!({})), (Some(0), vec!["FailJob".to_owned(), "FailJob".to_owned()]));
    let elastic = of(json!({"muster.dev/min-nodes": "2"}));
    assert_eq!(elastic, (Some(10), vec!["FailJob".to_owned(), "Ignore".to_owned()]));
}

/// Complaint 9: what waits for other members has no pods that their gang could wait for.
#[test]
fn a_pod_group_has_the_members_that_start_together() {
    let group = |change: fn(&mut Value)| {
        let mut runtime = mpi_runtime();
        runtime["spec"]["podGroupPolicy"] = json!({"coscheduling": {}});
        change(&mut runtime["spec"]["template"]["spec"]);
        let trainer = json!({"numNodes": 3, "resourcesPerNode": {"limits": {"cpu": 2}}});
        let group = rendered(json!({"trainer": trainer}), runtime).pod_group.unwrap();
        (group["spec"]["minMember"].clone(), group["spec"]["minResources"]["cpu"].clone())
    };
    assert_eq!(group(|_| ()), (json!(2), json!("4")), "the launcher depends on the two nodes beside it");
    let together = |set: &mut Value| set["replicatedJobs"][1]["dependsOn"] = json!([]);
    assert_eq!(group(together), (json!(3), json!("6")));
    let in_order = |set: &mut Value| {
        set["replicatedJobs"][1]["dependsOn"] = json!([]);
        set["startupPolicy"] = json!({"startupPolicyOrder": "InOrder"});
    };
    assert_eq!(group(in_order), (json!(2), json!("4")));
}

#[test]
fn a_launcher_that_does_not_train_asks_for_nothing_of_a_nodes() {
    let asks = |trains: bool| {
        let mut runtime = mpi_runtime();
        runtime["spec"]["mlPolicy"]["mpi"]["runLauncherAsNode"] = json!(trains);
        let trainer = json!({"numNodes": 2, "resourcesPerNode": {"limits": {"nvidia.com/gpu": 8}}});
        let set = rendered(json!({"trainer": trainer}), runtime).jobset;
        [0, 1].map(|group| {
            let spec = set.spec.replicated_jobs[group].template.spec.clone().unwrap();
            (spec.parallelism, spec.template.spec.unwrap().containers[0].resources.is_some())
        })
    };
    assert_eq!(asks(true), [(Some(1), true), (Some(1), true)]);
    assert_eq!(asks(false), [(Some(2), true), (Some(1), false)]);
}

/// Complaint 17: a shell that SSH opens on a node has none of its container's variables.
#[test]
fn open_mpi_is_told_to_pass_the_jobs_variables_to_ranks_unless_the_command_does() {
    let listed = |command: Value, env: Value| {
        let set = rendered(json!({"trainer": {"command": command, "env": env}}), mpi_runtime()).jobset;
        let all = variables(&set, 1);
        all.into_iter().find_map(|v| v.strip_prefix("OMPI_MCA_mca_base_env_list=").map(str::to_owned))
    };
    let env = json!([{"name": "A", "value": "b"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]);
    assert_eq!(listed(json!(["mpirun", "train"]), env.clone()).as_deref(), Some("A;NODE"));
    assert_eq!(listed(json!(["sh", "-c", "mpirun -x A train"]), env), None);
    assert_eq!(listed(json!(["mpirun", "train"]), json!([])), None);
}

#[test]
fn torchtune_gets_its_recipe_and_configuration_from_the_runtime_and_the_job() {
    let mut runtime = runtime(json!({"torch": {}}));
    let node = &mut runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
        ["spec"]["containers"][0];
    node["command"] = json!([
        "tune",
        "run",
        "--rdzv_endpoint=localhost:29500",
        "full_finetune_distributed",
        "--config",
        "llama3_2/1B_full",
        "output_dir=/workspace/output",
        "dataset.source=parquet"
    ]);
    let command = |trainer: Value| {
        let set = rendered(json!({"trainer": trainer}), runtime.clone()).jobset;
        let pod = set.spec.replicated_jobs[0].template.spec.clone().unwrap().template.spec.unwrap();
        assert!(!variables(&set, 0).iter().any(|variable| variable.starts_with("PET_MASTER")));
        pod.containers[0].command.clone().unwrap().join(" ")
    };
    assert_eq!(
        command(json!({"command": ["tune", "run"], "args": ["epochs=1"], "numNodes": 2})),
        "tune run --rdzv_endpoint=train-node-0-0.train:29500 full_finetune_distributed --config llama3_2/1B_full output_dir=/workspace/output"
    );
    assert_eq!(
        command(
            json!({"command": ["tune", "run"], "args": ["model.lora_rank=8", "model.quantize_base=True"]})
        ),
        "tune run lora_finetune_single_device --config llama3_2/1B_qlora_single_device output_dir=/workspace/output"
    );
}

#[test]
fn initializers_get_their_sources_and_are_no_members_of_the_gang() {
    let mut runtime = runtime(json!({"numNodes": 2, "torch": {}}));
    runtime["spec"]["podGroupPolicy"] = json!({"coscheduling": {}});
    let groups = &mut runtime["spec"]["template"]["spec"]["replicatedJobs"];
    let fetch = json!({"name": "dataset-initializer", "template": {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "dataset-initializer"}},
        "spec": {"template": {"spec": {"containers": [{"name": "dataset-initializer",
            "env": [{"name": "STORAGE_URI", "value": "hf://old/one"}]}]}}},
    }});
    groups[0]["dependsOn"] = json!([{"name": "dataset-initializer", "status": "Complete"}]);
    groups.as_array_mut().unwrap().insert(0, fetch);
    let source = json!({"storageUri": "hf://new/one", "env": [{"name": "SPLIT", "value": "train"}], "secretRef": {"name": "token"}});
    let spec = json!({"initializer": {"dataset": source}, "trainer": {"resourcesPerNode": {"requests": {"cpu": "2"}}}});
    let Rendered { jobset, pod_group, .. } = rendered(spec, runtime);
    assert_eq!(variables(&jobset, 0), ["STORAGE_URI=hf://new/one", "SPLIT=train"]);
    let pods = |group: usize| jobset.spec.replicated_jobs[group].template.spec.clone().unwrap().template;
    let secret = pods(0).spec.unwrap().containers[0].env_from.clone().unwrap()[0].secret_ref.clone().unwrap();
    assert_eq!(secret.name, "token");
    assert!(pods(0).metadata.is_none());
    assert_eq!(pods(1).metadata.unwrap().labels.unwrap()["scheduling.x-k8s.io/pod-group"], "train");
    insta::assert_yaml_snapshot!(pod_group.unwrap());
}

#[test]
fn volcano_is_told_queue_and_topology() {
    let mut runtime = runtime(json!({"numNodes": 4, "torch": {}}));
    runtime["spec"]["podGroupPolicy"] = json!({"volcano": {"networkTopology": {"mode": "soft"}}});
    let mut manifest = job(json!({}));
    manifest["metadata"]["annotations"] = json!({"scheduling.volcano.sh/queue-name": "research", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let job: TrainJob = serde_json::from_value(manifest).unwrap();
    let runtime: TrainingRuntime = serde_json::from_value(runtime).unwrap();
    let Rendered { jobset, pod_group, .. } = render(&job, &runtime.spec, &GangScheduler::Muster);
    insta::assert_yaml_snapshot!(pod_group.unwrap()["spec"]);
    assert_eq!(jobset.metadata.annotations.unwrap().len(), 1, "what kubectl remembers stays with the job");
}

#[test]
fn patches_merge_lists_by_name() {
    let mut runtime = runtime(json!({"torch": {}}));
    let pod =
        &mut runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]);
    pod["tolerations"] = json!([{"key": "gpu", "operator": "Exists"}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "a", "mountPath": "/a"}]);
    let change = json!({"serviceAccountName": "trainer", "volumes": [{"name": "b", "hostPath": {"path": "/b"}}],
        "tolerations": [{"key": "gpu", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}],
        "schedulingGates": [{"name": "wait"}],
        "containers": [{"name": "node", "volumeMounts": [{"name": "a", "mountPath": "/new"}, {"name": "b", "mountPath": "/b"}]}]});
    let patch = |pod: Value| {
        json!({"name": "node", "template": {"metadata": {"annotations": {"x": "y"}},
        "spec": {"template": {"metadata": {"labels": {"l": "m"}}, "spec": pod}}}})
    };
    let patches = json!([{"manager": "me", "trainingRuntimeSpec": {"template": {"metadata": {"labels": {"set": "yes"}},
        "spec": {"replicatedJobs": [patch(change)]}}}}]);
    let set = rendered(json!({"runtimePatches": patches}), runtime).jobset;
    assert_eq!(set.metadata.labels.unwrap()["set"], "yes");
    insta::assert_yaml_snapshot!(set.spec.replicated_jobs[0]);
}
