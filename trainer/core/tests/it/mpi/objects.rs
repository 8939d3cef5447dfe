//! What an MPI job's objects look like.

use k8s_openapi::api::core::v1::EnvVar;
use muster_trainer_core::mpi::AgentSource;
use muster_trainer_core::{Companion, CompanionAction, Effect, GangScheduler};
use serde_json::{Value, json};

use super::world::{World, manifest, manifest_v1};

fn settled(job: Value) -> World {
    let mut world = World::new(job);
    world.settle();
    world
}

#[test]
fn a_job_as_the_mpi_operator_makes_it() {
    let mut job = manifest(2);
    job["spec"]["slotsPerWorker"] = json!(2);
    job["spec"]["runPolicy"] =
        json!({"backoffLimit": 3, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 5});
    let world = settled(job);
    insta::assert_yaml_snapshot!("sshd_worker", world.pods["pi-worker-1"]);
    insta::assert_yaml_snapshot!("sshd_launcher", world.launchers["pi-launcher"].spec);
    insta::assert_yaml_snapshot!("service", world.services["pi"]);
    insta::assert_yaml_snapshot!("configuration", world.config_maps["pi-config"]);
    insta::assert_yaml_snapshot!("first_status", world.job.as_ref().unwrap().status);
    assert_eq!(world.companions.keys().collect::<Vec<_>>(), ["Secret/pi-ssh"]);
    assert_eq!(world.annotation("muster.dev/remote-shell"), Some("sshd"));
}

#[test]
fn a_job_of_the_training_operator_starts_processes_by_the_agent() {
    let mut world = World::new(manifest_v1(2));
    world.options.mpi.agent = Some(AgentSource::OnPath);
    world.settle();
    insta::assert_yaml_snapshot!("agent_worker", world.pods["pi-worker-0"]);
    insta::assert_yaml_snapshot!("agent_launcher", world.launchers["pi-launcher"].spec);
    assert_eq!(
        world.companions.keys().collect::<Vec<_>>(),
        ["Role/pi-launcher", "RoleBinding/pi-launcher", "ServiceAccount/pi-launcher"]
    );
    let Companion::Role(role) = &world.companions["Role/pi-launcher"] else { panic!() };
    insta::assert_yaml_snapshot!("agent_role", role.rules);
    assert_eq!(world.annotation("muster.dev/remote-shell"), Some("agent"));
}

/// Until a worker is there, and is the job's, somebody else's pod may have its name.
#[test]
fn a_launcher_may_reach_its_workers_once_they_are_its_own() {
    let mut world = World::new(manifest_v1(2));
    world.options.mpi.agent = Some(AgentSource::OnPath);
    let stages = world.view().plan(world.now, &world.options).stages();
    let stage_of = |wanted: fn(&Effect) -> bool| stages.iter().position(|stage| stage.iter().any(wanted));
    let steps = [
        stage_of(|step| matches!(step, Effect::CreatePod(_))),
        stage_of(|step| matches!(step, Effect::Companion(CompanionAction::Ensure(Companion::Role(_))))),
        stage_of(|step| {
            matches!(step, Effect::Companion(CompanionAction::Ensure(Companion::RoleBinding(_))))
        }),
        stage_of(|step| matches!(step, Effect::Companion(CompanionAction::Ensure(Companion::Job(_))))),
    ];
    assert!(
        steps.iter().all(Option::is_some) && steps.is_sorted_by(|before, after| before < after),
        "{steps:?}"
    );
}

/// In a role a rule without names is one for all.
#[test]
fn a_launcher_without_workers_may_reach_no_pod() {
    let mut world = World::new(manifest_v1(0));
    world.options.mpi.agent = Some(AgentSource::OnPath);
    world.settle();
    let Companion::Role(role) = &world.companions["Role/pi-launcher"] else { panic!() };
    assert_eq!(role.rules, Some(Vec::new()));
}

#[test]
fn an_image_brings_the_agent_and_a_named_account_is_given_the_rights() {
    let mut job = manifest(1);
    job["metadata"]["annotations"] = json!({"muster.dev/remote-shell": "agent"});
    job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["serviceAccountName"] = json!("mine");
    let world = settled(job);
    let spec = world.launchers["pi-launcher"].spec.as_ref().unwrap().template.spec.clone().unwrap();
    insta::assert_yaml_snapshot!("agent_init_containers", spec.init_containers);
    assert_eq!(spec.service_account_name.as_deref(), Some("mine"));
    let Companion::RoleBinding(binding) = &world.companions["RoleBinding/pi-launcher"] else { panic!() };
    assert_eq!(binding.subjects.as_ref().unwrap()[0].name, "mine");
    assert!(!world.companions.contains_key("ServiceAccount/pi-launcher"));
}

#[test]
fn without_an_agent_a_job_that_needs_it_says_so_and_waits() {
    let mut world = World::new(manifest_v1(1));
    world.options.mpi.agent = None;
    world.settle();
    assert!(world.pods.is_empty() && world.launchers.is_empty());
    let (_, message) = world.said(muster_trainer_api::ConditionType::Created);
    assert_eq!(
        message,
        "MPIJob pi is created; it starts processes by Muster's agent, and the controller knows no image of it: \
         start it with --mpi-agent-image, or set the job's annotation muster.dev/remote-shell to sshd"
    );
    let mut world = World::new(manifest(1));
    world.options.mpi.agent = None;
    world.settle();
    let launcher = world.launchers["pi-launcher"].spec.clone().unwrap().template.spec.unwrap();
    assert_eq!(launcher.init_containers, None, "sshd needs no agent, and then nobody waits for it");
}

fn environment(implementation: &str, shell: &str) -> Vec<String> {
    let mut job = manifest(1);
    job["spec"]["mpiImplementation"] = json!(implementation);
    job["metadata"]["annotations"] = json!({"muster.dev/remote-shell": shell});
    let world = settled(job);
    let spec = world.launchers["pi-launcher"].spec.clone().unwrap().template.spec.unwrap();
    let show = |variable: EnvVar| format!("{}={}", variable.name, variable.value.unwrap_or_default());
    spec.containers[0].env.clone().unwrap().into_iter().map(show).collect()
}

#[test]
fn each_implementation_is_told_in_its_own_words() {
    let mut told = Vec::new();
    for implementation in ["OpenMPI", "Intel", "MPICH"] {
        for shell in ["sshd", "agent"] {
            told.push(format!(
                "{implementation}, {shell}:\n{}",
                environment(implementation, shell).join("\n")
            ));
        }
    }
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn open_mpi_binds_processes_only_to_processors_of_their_own() {
    let policy = |resources: Value, said: Option<&str>| {
        let mut job = manifest(2);
        job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["resources"] =
            resources;
        let name = "OMPI_MCA_hwloc_base_binding_policy";
        if let Some(said) = said {
            job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]["env"] =
                json!([{"name": name, "value": said}]);
        }
        let world = settled(job);
        let template = world.launchers["pi-launcher"].spec.clone().unwrap().template;
        let variables = template.spec.unwrap().containers[0].env.clone().unwrap();
        let found: Vec<_> = variables.into_iter().filter(|variable| variable.name == name).collect();
        assert!(found.len() < 2);
        found.first().and_then(|variable| variable.value.clone())
    };
    let none = Some("none".to_owned());
    assert_eq!(policy(json!({}), None), none);
    assert_eq!(policy(json!({"limits": {"cpu": "4"}}), None), none);
    assert_eq!(policy(json!({"limits": {"cpu": "1500m", "memory": "1Gi"}}), None), none);
    let burstable = json!({"limits": {"cpu": "4", "memory": "1Gi"}, "requests": {"cpu": "1"}});
    assert_eq!(policy(burstable, None), none);
    assert_eq!(policy(json!({"limits": {"cpu": "4", "memory": "1Gi"}}), None), None);
    assert_eq!(policy(json!({}), Some("core")), Some("core".to_owned()));
}

#[test]
fn hostfiles_are_written_as_each_implementation_reads_them() {
    let hostfile = |implementation: &str| {
        let mut job = manifest(2);
        job["spec"]["mpiImplementation"] = json!(implementation);
        job["spec"]["slotsPerWorker"] = json!(4);
        let mut world = World::new(job);
        world.options.cluster_domain = Some("example.org".to_owned());
        world.settle();
        world.file("hostfile").to_owned()
    };
    assert_eq!(
        hostfile("OpenMPI"),
        "pi-worker-0.pi.team.svc.example.org slots=4\npi-worker-1.pi.team.svc.example.org slots=4\n"
    );
    let others = "pi-worker-0.pi.team.svc.example.org:4\npi-worker-1.pi.team.svc.example.org:4\n";
    assert_eq!(hostfile("Intel"), others);
    assert_eq!(hostfile("MPICH"), others);
}

#[test]
fn a_launcher_that_is_a_worker_is_the_first_host_and_keeps_its_gpus() {
    let mut job = manifest(2);
    job["spec"]["runLauncherAsWorker"] = json!(true);
    let world = settled(job);
    assert!(world.file("hostfile").starts_with("pi-launcher.pi.team.svc slots=1\npi-worker-0"));
    let index = |labels: Option<&std::collections::BTreeMap<String, String>>| {
        labels.unwrap()["training.kubeflow.org/replica-index"].clone()
    };
    assert_eq!(index(world.pods["pi-worker-1"].metadata.labels.as_ref()), "2");
    let template = world.launchers["pi-launcher"].spec.clone().unwrap().template;
    assert_eq!(index(template.metadata.unwrap().labels.as_ref()), "0");
    let variables = template.spec.unwrap().containers[0].env.clone().unwrap();
    assert!(variables.iter().all(|variable| !variable.name.starts_with("NVIDIA")));
}

#[test]
fn the_gang_has_the_launcher_in_it_unless_that_waits_for_the_workers() {
    let gang = |policy: &str, change: &dyn Fn(&mut Value)| {
        let mut job = manifest(3);
        job["spec"]["launcherCreationPolicy"] = json!(policy);
        job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["schedulerName"] = json!("other");
        change(&mut job);
        let mut world = World::new(job);
        world.options.gang_scheduler = GangScheduler::Muster;
        world.settle();
        world
    };
    let world = gang("AtStartup", &|_| {});
    let worker = &world.pods["pi-worker-2"];
    assert_eq!(worker.spec.as_ref().unwrap().scheduler_name.as_deref(), Some("muster"), "all of the gang");
    insta::assert_yaml_snapshot!("gang_worker_annotations", worker.metadata.annotations);
    let template = world.launchers["pi-launcher"].spec.clone().unwrap().template;
    insta::assert_yaml_snapshot!("gang_launcher_annotations", template.metadata.unwrap().annotations);
    let at_least = |world: &World| {
        world.pods["pi-worker-0"].metadata.annotations.as_ref().unwrap()["muster.dev/gang-min-available"]
            .clone()
    };
    assert_eq!(at_least(&gang("WaitForWorkersReady", &|_| {})), "3");
    let asked = |job: &mut Value| job["spec"]["runPolicy"] = json!({"schedulingPolicy": {"minAvailable": 2}});
    assert_eq!(at_least(&gang("AtStartup", &asked)), "2");
}

#[test]
fn a_pod_group_takes_queue_and_priority_from_where_the_mpi_operator_does() {
    let mut job = manifest(2);
    job["metadata"]["annotations"] = json!({"scheduling.volcano.sh/queue-name": "research"});
    let specs = &mut job["spec"]["mpiReplicaSpecs"];
    specs["Worker"]["template"]["spec"]["priorityClassName"] = json!("low");
    specs["Launcher"]["template"]["spec"]["priorityClassName"] = json!("high");
    let mut world = World::new(job);
    world.options.gang_scheduler = GangScheduler::Volcano;
    world.settle();
    let group = world.pod_group.unwrap();
    assert_eq!(group["spec"], json!({"minMember": 3, "queue": "research", "priorityClassName": "high"}));
    assert!(world.pods.is_empty(), "they wait for their group");
}
