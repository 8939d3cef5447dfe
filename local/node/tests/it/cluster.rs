//! An API server and a node in this process, and a check that nothing of them stays.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use muster_node::{Handle, Isolation, NodeDescription, Options, StreamPatience};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    pub(crate) folder: tempfile::TempDir,
    shutdown: CancellationToken,
    server: Option<JoinHandle<()>>,
    kubeconfig: String,
    api: std::net::SocketAddr,
    node: Option<(Handle, CancellationToken, JoinHandle<()>)>,
    isolation: Isolation,
    pod_processes: Option<u64>,
    stream_patience: StreamPatience,
}

/// Tests of namespaces need root; says so when they are skipped.
pub(crate) fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: {test} needs root for namespaces");
    }
    root
}

impl Cluster {
    pub(crate) async fn start(isolation: Isolation) -> Self {
        Self::start_limited(isolation, None).await
    }

    /// With a limit of processes for every pod.
    pub(crate) async fn start_limited(isolation: Isolation, pod_processes: Option<u64>) -> Self {
        Self::start_with(isolation, pod_processes, StreamPatience::default()).await
    }

    /// With another patience for clients of streams.
    pub(crate) async fn start_patient(stream_patience: StreamPatience) -> Self {
        Self::start_with(Isolation::Light, None, stream_patience).await
    }

    async fn start_with(
        isolation: Isolation,
        pod_processes: Option<u64>,
        stream_patience: StreamPatience,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = muster_apiserver::Options {
            in_memory: true,
            node_socket: Some(folder.path().join("node/node.sock")),
            ..muster_apiserver::Options::new(folder.path().join("api"))
        };
        let service = options.build().await.unwrap();
        let client = service.handle().client();
        let api = service.handle().address();
        let kubeconfig = service.handle().kubeconfig().to_owned();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let server = Some(tokio::spawn(async move { service.run(stop).await.unwrap() }));
        let mut cluster = Self {
            client,
            folder,
            shutdown,
            server,
            kubeconfig,
            api,
            node: None,
            isolation,
            pod_processes,
            stream_patience,
        };
        cluster.start_node().await;
        cluster
    }

    pub(crate) fn state_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("node")
    }

    pub(crate) async fn start_node(&mut self) {
        let spawner = vec![env!("CARGO_BIN_EXE_muster-node-spawner").into(), self.marker().into()];
        let mut options = Options::new(self.client.clone(), self.state_dir(), spawner);
        options.isolation = self.isolation;
        options.pod_processes = self.pod_processes;
        options.stream_patience = self.stream_patience;
        options.api_address = Some(self.api);
        options.tools = vec![("muster-true".to_owned(), Path::new("/bin/true").to_owned())];
        options.nodes = (0..2)
            .map(|index| NodeDescription { gpus: 4, ..NodeDescription::new(format!("node-{index}")) })
            .collect();
        let service = options.build().await.unwrap();
        let handle = service.handle();
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { service.run(stop).await.unwrap() }
        });
        tokio::time::timeout(PATIENCE, handle.ready()).await.unwrap();
        self.node = Some((handle, stop, task));
    }

    /// What the node says of itself.
    pub(crate) fn node(&self) -> &Handle {
        &self.node.as_ref().unwrap().0
    }

    /// Stops the agent; pods run on.
    pub(crate) async fn stop_node(&mut self) {
        let (_, stop, task) = self.node.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    /// Ends the agent in the midst of what it does, as a killed process would; pods run on.
    pub(crate) async fn kill_node(&mut self) {
        let (_, _, task) = self.node.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// Ends the agent and its pods as `muster down` does; objects and logs stay.
    pub(crate) async fn take_node_down(&mut self) {
        self.stop_node().await;
        muster_node::tear_down(&self.state_dir()).await.unwrap();
    }

    /// Folders of logs whose name has this in it.
    pub(crate) fn log_folders(&self, name: &str) -> usize {
        let folders = fs_err::read_dir(self.state_dir().join("logs")).unwrap().flatten();
        folders.filter(|folder| folder.file_name().to_string_lossy().contains(name)).count()
    }

    /// An argument of the spawner, and so of its forks, that only this cluster's processes have.
    pub(crate) fn marker(&self) -> String {
        format!("cluster={}", self.folder.path().display())
    }

    /// Processes of this cluster's spawner and pods that have this name.
    pub(crate) fn processes(&self, name: Option<&str>) -> Vec<i32> {
        let marker = self.marker();
        let all = fs_err::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            let ours = line.split(|byte| *byte == 0).any(|word| word == marker.as_bytes());
            (ours && name.is_none_or(|name| comm.trim() == name))
                .then(|| entry.file_name().to_str()?.parse().ok())?
        })
        .collect()
    }

    /// Where the node makes control groups for memory, if it can.
    pub(crate) fn control_group(&self) -> Option<std::path::PathBuf> {
        let state = self.state_dir().canonicalize().unwrap();
        find_folder(Path::new("/sys/fs/cgroup"), &group_name(&state), 5)
    }

    /// Whether the node can limit processes.
    pub(crate) fn limits_processes(&self) -> bool {
        let state = self.state_dir().canonicalize().unwrap();
        let own = find_folder(Path::new("/sys/fs/cgroup/pids"), &group_name(&state), 5);
        own.or_else(|| self.control_group()).is_some_and(|folder| folder.join("pids.max").exists())
    }

    /// The folder of a pod's files.
    pub(crate) fn pod_folder(&self, pod: &Pod) -> std::path::PathBuf {
        self.state_dir().join("pods").join(pod.metadata.uid.as_ref().unwrap())
    }

    /// Creates any object of the namespace `default`.
    pub(crate) async fn create_object<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        Api::namespaced(self.client.clone(), "default")
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    /// Takes all down and checks that no process, mount or interface is left.
    pub(crate) async fn stop(mut self) {
        self.stop_node().await;
        let state = self.state_dir();
        muster_node::tear_down(&state).await.unwrap();
        let state = state.canonicalize().unwrap();
        let mut left: Vec<_> =
            fs_err::read_dir(&state).unwrap().flatten().map(|entry| entry.file_name()).collect();
        left.retain(|name| name != "logs");
        assert!(left.is_empty(), "files left besides logs: {left:?}");
        let mounts = fs_err::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(state.to_str().unwrap()), "mounts left");
        let name = group_name(&state);
        for hierarchy in fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            assert!(find_folder(&hierarchy.path(), &name, 4).is_none(), "control group {name} left");
        }
        let bridge = Path::new("/sys/class/net").join(name.replace("muster-", "mu-"));
        assert!(!bridge.exists(), "bridge left");
        // A killed process is there until the kernel has taken it apart.
        let gone = async {
            while !self.processes(None).is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let gone = tokio::time::timeout(std::time::Duration::from_secs(10), gone).await;
        assert!(gone.is_ok(), "processes left: {:?}", self.processes(None));
        self.shutdown.cancel();
        self.server.take().unwrap().await.unwrap();
    }

    /// Ends the server as its process would end it; node and pods stay.
    pub(crate) async fn stop_server(&mut self) {
        self.shutdown.cancel();
        self.server.replace(tokio::spawn(std::future::ready(()))).unwrap().await.unwrap();
    }

    /// A client over the network: streams need a connection of their own.
    /// What clients over the network know of the API server.
    pub(crate) fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    pub(crate) async fn client_by_network(&self) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&self.kubeconfig).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    pub(crate) async fn pods_by_network(&self) -> Api<Pod> {
        Api::namespaced(self.client_by_network().await, "default")
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a pod on node-0; `spec` is merged into one with a shell container `main`.
    pub(crate) async fn create(&self, name: &str, script: &str, spec: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": "node-0", "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
                "containers": [{"name": "main", "image": "busybox", "command": ["/bin/sh", "-c", script]}],
            },
        });
        merge(&mut pod["spec"], spec);
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    /// Creates a pod with one command.
    pub(crate) async fn create_plain(&self, name: String, command: &[&str], node: usize) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": format!("node-{node}"), "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                     "containers": [{"name": "main", "image": "busybox", "command": command}]},
        });
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    /// Waits until `count` pods fulfil `condition`.
    pub(crate) async fn wait_all(&self, count: usize, condition: impl Fn(&Pod) -> bool) {
        let mut done = std::collections::BTreeSet::new();
        let all = tokio::time::timeout(PATIENCE, async {
            let mut events = watcher(self.pods(), watcher::Config::default()).default_backoff().boxed();
            while done.len() < count {
                if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) =
                    events.next().await.unwrap()
                    && condition(&pod)
                {
                    done.insert(pod.metadata.name.unwrap());
                }
            }
        })
        .await;
        assert!(all.is_ok(), "only {} of {count} pods", done.len());
    }

    /// Waits until the pod fulfils `condition`; `None` is a pod that is gone.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(Option<&Pod>) -> bool,
    ) -> Option<Pod> {
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let mut events = watcher(self.pods(), config).default_backoff().boxed();
            loop {
                match events.next().await.unwrap() {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => last = Some(pod),
                    Ok(watcher::Event::Delete(_)) => last = None,
                    Ok(watcher::Event::InitDone) => {}
                    _ => continue,
                }
                if condition(last.as_ref()) {
                    return last.clone();
                }
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("pod {name} never became {what}: {:#?}", last.map(|pod| pod.status)))
    }

    pub(crate) async fn wait_phase(&self, name: &str, phase: &str) -> Pod {
        let reached = |pod: Option<&Pod>| {
            pod.and_then(|pod| pod.status.as_ref()).and_then(|status| status.phase.as_deref()) == Some(phase)
        };
        self.wait(name, phase, reached).await.unwrap()
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        self.wait(name, "gone", |pod| pod.is_none()).await;
    }

    /// Asks the node itself for a log.
    pub(crate) async fn log(&self, name: &str, query: &str) -> String {
        self.get(&format!("/containerLogs/default/{name}/main?{query}")).await
    }

    pub(crate) async fn log_bytes(&self, name: &str, query: &str) -> Vec<u8> {
        self.get_bytes(&format!("/containerLogs/default/{name}/main?{query}")).await
    }

    /// Asks the node itself.
    pub(crate) async fn get(&self, path: &str) -> String {
        String::from_utf8(self.get_bytes(path).await).unwrap()
    }

    async fn get_bytes(&self, path: &str) -> Vec<u8> {
        use http_body_util::BodyExt as _;
        let stream = tokio::net::UnixStream::connect(self.state_dir().join("node.sock")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path)
            .header("host", "node")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let body = sender.send_request(request).await.unwrap().into_body();
        let bytes = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
        connection.abort();
        bytes.to_vec()
    }
}

/// A test that failed leaves nothing either.
impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_none() {
            return;
        }
        if let Some((_, _, task)) = self.node.take() {
            task.abort();
        }
        let state = self.state_dir();
        // A runtime of its own: this one is busy unwinding.
        let torn_down = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(muster_node::tear_down(&state)))
        });
        if !matches!(torn_down.join(), Ok(Ok(Ok(())))) {
            eprintln!("a failed test could not take its node down");
        }
    }
}

/// The node's name for its control groups, which ends as the one of its bridge does.
pub(crate) fn group_name(state_dir: &Path) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(state_dir.to_str().unwrap().as_bytes());
    format!("muster-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

/// Whether a process has this word in its command line.
pub(crate) fn process_exists(argument: &str) -> bool {
    fs_err::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

/// Waits until such a process is there, or none any more.
pub(crate) async fn wait_process(argument: &str, there: bool) {
    let reached = async {
        while process_exists(argument) != there {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "process {argument}: there must be {}", if there { "one" } else { "none" });
}

fn find_folder(folder: &Path, name: &str, depth: u32) -> Option<std::path::PathBuf> {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|path| path.is_dir() && !path.is_symlink()).find_map(|path| {
        let found = path.file_name().is_some_and(|file| file == name);
        if found { Some(path) } else { find_folder(&path, name, depth.checked_sub(1)?) }
    })
}

pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) if into.len() == from.len() => {
            into.iter_mut().zip(from).for_each(|(into, from)| merge(into, from));
        }
        (into, from) => *into = from,
    }
}

/// How the first container ended.
pub(crate) fn terminated(pod: &Pod) -> k8s_openapi::api::core::v1::ContainerStateTerminated {
    let status = pod.status.as_ref().unwrap();
    status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap().terminated.clone().unwrap()
}
