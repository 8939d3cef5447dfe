//! The commands of `muster` and what they print.

use crate::harness::manifests::ShellJob;
use crate::harness::{Cluster, Conversation, Home};

#[tokio::test]
async fn a_detached_cluster_comes_and_goes() {
    let home = Home::new();
    let mut talk = Conversation::in_home(&home);
    talk.types("muster get pods").await;
    talk.types("muster down").await;
    talk.types("muster up --detach").await;
    talk.types("muster up").await;
    talk.types("muster get nodes").await;
    talk.types("muster version").await;
    talk.types("muster down").await;
    talk.types("muster get nodes").await;
    home.assert_nothing_left().await;
    talk.types("muster down --purge").await;
    insta::assert_snapshot!(talk.text());
    assert!(!home.path().exists(), "purged");
}

#[tokio::test]
async fn objects_are_shown_in_every_form() {
    let cluster = Cluster::start(&["--nodes", "1", "--gpus-per-node", "2"]).await;
    let job = ShellJob { script: "echo trained; sleep 600", gpus: 1, ..ShellJob::default() };
    cluster.home.write("job.yaml", &job.yaml());
    let mut talk = Conversation::in_home(&cluster.home);
    talk.types("muster get pytorchjobs").await;
    talk.types("muster submit job.yaml").await;
    cluster.wait_for("pytorchjob/job", "condition=Running").await;
    cluster.wait_for("pod/job-master-0", "condition=Ready").await;
    cluster.wait_for("pod/job-worker-0", "condition=Ready").await;
    talk.types("muster submit job.yaml").await;
    talk.types("muster get pytorchjobs").await;
    talk.types("muster get pytorchjobs -o name").await;
    talk.types("muster get pods").await;
    talk.types("muster get pod/job-master-0 --no-headers").await;
    talk.types("muster get pods -A -l training.kubeflow.org/replica-type=worker").await;
    talk.types("muster explain job/job").await;
    talk.types("muster logs job-master-0").await;
    talk.types("muster logs pod/job-worker-0 --tail 1").await;
    talk.types("muster delete pytorchjob/job").await;
    talk.types("muster get pods").await;
    insta::assert_snapshot!(talk.text());
    let json = cluster.muster(&["get", "nodes", "-o", "json"]).await.succeeded();
    let list: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(list["items"][0]["status"]["allocatable"]["nvidia.com/gpu"], "2");
    let yaml = cluster.muster(&["get", "node/node-0", "-o", "yaml"]).await.succeeded();
    assert!(yaml.stdout.starts_with("apiVersion: v1\nkind: Node\n"), "{}", yaml.stdout);
    cluster.stop().await;
}

#[tokio::test]
async fn errors_come_with_advice() {
    let cluster = Cluster::start(&[]).await;
    let mut talk = Conversation::in_home(&cluster.home);
    for line in [
        "muster get pytorchjob",
        "muster get nod",
        "muster get pods/nosuch",
        "muster describe pod/nosuch",
        "muster logs nosuch",
        "muster logs job/nosuch",
        "muster explain job/nosuch",
        "muster delete pytorchjob/nosuch",
        "muster submit nosuch.yaml",
        "muster frobnicate",
        "muster up --nodes 0",
        "muster up --image nonsense",
        "muster completions tcsh",
    ] {
        talk.types(line).await;
    }
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_that_does_not_fit_is_explained_and_starts_when_it_does() {
    let cluster = Cluster::start(&[]).await;
    for name in ["first", "second"] {
        let job = ShellJob { name, script: "sleep 600", workers: 1, gpus: 4, ..ShellJob::default() };
        cluster.home.write(&format!("{name}.yaml"), &job.yaml());
    }
    let huge = ShellJob { name: "huge", script: "sleep 600", workers: 0, gpus: 5, ..ShellJob::default() };
    cluster.home.write("huge.yaml", &huge.yaml());
    let mut talk = Conversation::in_home(&cluster.home);
    talk.types("muster whatif -f first.yaml").await;
    talk.types("muster submit first.yaml").await;
    cluster.wait_for("pytorchjob/first", "condition=Running").await;
    talk.types("muster whatif -f second.yaml").await;
    talk.types("muster whatif -f first.yaml").await;
    talk.types("muster submit second.yaml").await;
    cluster.wait_for("pod/second-master-0", "condition=PodScheduled=false").await;
    cluster.wait_for("pod/second-worker-0", "condition=PodScheduled=false").await;
    talk.types("muster explain job/second").await;
    talk.types("muster whatif --add-nodes 2 --like node-0").await;
    talk.types("muster submit huge.yaml").await;
    cluster.wait_for("pod/huge-master-0", "condition=PodScheduled=false").await;
    talk.types("muster explain job/huge").await;
    talk.types("muster explain job/huge -o json").await;
    talk.types("muster delete pytorchjob/first").await;
    cluster.wait_for("pod/second-master-0", "condition=Ready").await;
    cluster.wait_for("pod/second-worker-0", "condition=Ready").await;
    talk.types("muster explain job/second").await;
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

#[tokio::test]
async fn a_finished_job_is_described() {
    let cluster = Cluster::start(&[]).await;
    let job = ShellJob { workers: 0, ..ShellJob::default() };
    cluster.home.write("job.yaml", &job.yaml());
    cluster.muster(&["submit", "job.yaml"]).await.succeeded();
    cluster.wait_for("pytorchjob/job", "condition=Succeeded").await;
    let described = cluster.muster(&["describe", "pytorchjob/job"]).await.succeeded().stdout;
    for part in ["job-master-0", "Succeeded", "PyTorchJobCreated"] {
        assert!(described.contains(part), "no `{part}` in\n{described}");
    }
    let events = cluster.muster(&["events", "--for", "pytorchjob/job"]).await.succeeded().stdout;
    for part in ["SuccessfulCreatePod", "SuccessfulCreateService", "PyTorchJobSucceeded"] {
        assert!(events.contains(part), "no `{part}` in\n{events}");
    }
    let top = cluster.muster(&["top"]).await.succeeded().stdout;
    assert!(top.contains("node-1"), "{top}");
    cluster.stop().await;
}

#[tokio::test]
async fn an_image_without_a_root_says_what_to_do() {
    let cluster = Cluster::start(&[]).await;
    let job = ShellJob { workers: 0, ..ShellJob::default() };
    cluster.home.write("job.yaml", &job.yaml().replace("image: host", "image: registry.example/train:2"));
    cluster.muster(&["submit", "job.yaml"]).await.succeeded();
    let held = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull";
    cluster.wait_for("pod/job-master-0", held).await;
    let mut talk = Conversation::in_home(&cluster.home);
    talk.types("muster explain job/job").await;
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

#[tokio::test]
async fn nothing_but_the_program_is_needed_for_crds_and_completions() {
    let home = Home::new();
    let crds = home.run_muster(&["crds"]).await.succeeded().stdout;
    assert!(crds.contains("name: pytorchjobs.kubeflow.org"), "the CRDs");
    for shell in ["bash", "zsh", "fish"] {
        let text = home.run_muster(&["completions", shell]).await.succeeded().stdout;
        assert!(text.contains("muster"), "completions of {shell}");
    }
    assert!(!home.path().exists(), "no state is made");
}

#[tokio::test]
async fn workers_of_a_pod_start_without_a_cluster() {
    let home = Home::new();
    let script = "echo rank $RANK of $WORLD_SIZE; exit $RANK";
    let workers =
        ["exec-worker", "--nproc-per-node", "2", "--on-failure", "continue", "--", "sh", "-c", script];
    let ended = home.run_muster(&workers).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let mut lines: Vec<_> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[0] rank 0 of 2", "[1] rank 1 of 2"]);
    assert!(ended.stderr.starts_with("muster exec-worker: rank 1 (local rank 1) on "), "{ended:?}");
    assert!(!home.path().exists(), "no state is made");
}

#[tokio::test]
async fn where_nodes_are_is_drawn_as_others_describe_it() {
    let home = Home::new();
    // Labels of Muster's own would count before what others say.
    let node = |index: u32| format!("- {{name: node-{index}, gpus: 4, labels: {{muster.dev/rack: ''}}}}\n");
    home.write("nodes.yaml", &format!("nodes:\n{}", (0..3).map(node).collect::<String>()));
    let cluster = Cluster::start_in(home, &["--topology", "nodes.yaml"]).await;
    cluster.home.write("topology.conf", "SwitchName=s0 Nodes=node-[0-1]\nSwitchName=core Switches=s0\n");
    cluster.home.write("broken.conf", "SwitchName=s0 Nodes=node-[0-1]\nSwitchName=s1 Nodes=node-1\n");
    cluster.home.write("definition.yaml", HYPER_NODE_DEFINITION);
    cluster.home.write("leaf.yaml", HYPER_NODE);
    let mut talk = Conversation::in_home(&cluster.home);
    talk.types("muster topology show").await;
    talk.types("muster topology show --topology-conf topology.conf").await;
    talk.types("muster topology show --topology-conf broken.conf").await;
    cluster.muster(&["submit", "definition.yaml"]).await.succeeded();
    let definition = "customresourcedefinition/hypernodes.topology.volcano.sh";
    cluster.wait_for(definition, "condition=Established").await;
    cluster.muster(&["submit", "leaf.yaml"]).await.succeeded();
    talk.types("muster topology show").await;
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

const HYPER_NODE_DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: hypernodes.topology.volcano.sh}
spec:
  group: topology.volcano.sh
  scope: Cluster
  names: {kind: HyperNode, plural: hypernodes, singular: hypernode}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

const HYPER_NODE: &str = "
apiVersion: topology.volcano.sh/v1alpha1
kind: HyperNode
metadata: {name: leaf-0}
spec:
  tier: 1
  members:
  - {type: Node, selector: {exactMatch: {name: node-0}}}
  - {type: Node, selector: {exactMatch: {name: node-1}}}
";
