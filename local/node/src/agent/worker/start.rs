//! The beginning of a pod: admission, its frame (network, names, volumes, init process), and its containers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use fs_err as fs;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::timeout;

use super::report::note_restart;
use super::{RETRY, Worker};
use crate::agent::container::{self, Frame, Obstacle};
use crate::agent::{peers, pod_volumes, probes, services};
use crate::gpu::parse_indices;
use crate::hosts::Identity;
use crate::plan::Phase;
use crate::protocol::{InitRequest, Sandbox};
use crate::quantity;
use crate::runtime::PodProcess;
use crate::services::resolver;
use crate::sources::Sources;

/// An init that says nothing for so long when it is taken over is stuck.
const STATE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pod waits for the GPU slots of pods that are ending.
const GPU_PATIENCE: Duration = Duration::from_secs(5);
const GPU: &str = "nvidia.com/gpu";
const GPU_WISH: &str = "muster.dev/gpu-indices";

impl Worker {
    /// Finds out what is there of the pod already.
    pub(super) async fn take_over(&mut self) {
        let status = self.pod.status.clone().unwrap_or_default();
        match status.phase.as_deref() {
            Some(phase @ ("Succeeded" | "Failed")) => {
                self.remember_runs();
                self.overall.finished = Some(phase == "Succeeded");
                self.overall.reason.clone_from(&status.reason);
                self.overall.message.clone_from(&status.message);
                self.overall.pod_ip.clone_from(&status.pod_ip);
                self.reporter.knows(status);
                return;
            }
            _ => self.remember_runs(),
        }
        let had_run = self.overall.start_time.is_some();
        if !had_run {
            return;
        }
        self.admit();
        match PodProcess::adopt(&self.directory) {
            Ok(process) => {
                tracing::info!(pod = %self.record.name, namespace = %self.record.namespace, "took over a running pod");
                self.process = Some(process);
                self.overall.sandbox_ready = true;
                self.rotate_at = crate::volumes::token_rotation(&self.pod).map(|_| Timestamp::now());
                if let Some(address) = self.record.address {
                    self.set_address(address);
                    let _ = self.keep_names(address);
                }
                self.tell_init(&InitRequest::State).await;
                let deadline = tokio::time::sleep(STATE_PATIENCE);
                tokio::pin!(deadline);
                // The state comes first: without it containers would be started twice.
                let event = match &mut self.process {
                    Some(process) => {
                        tokio::select! { event = process.next() => event, () = &mut deadline => None }
                    }
                    None => None,
                };
                if let Some(event) = event {
                    self.on_event(event).await;
                } else {
                    if let Some(process) = self.process.take() {
                        process.end().await;
                    }
                    self.on_lost();
                }
            }
            Err(_) => self.on_lost(),
        }
    }

    /// Starts a container, and before it what the pod needs.
    pub(super) async fn start(&mut self, place: usize) {
        if self.overall.start_time.is_none() {
            self.overall.start_time = Some(Timestamp::now());
            self.await_gpus().await;
            if self.is_unwanted() || !self.admit() {
                return;
            }
        }
        let context = self.context.clone();
        let sources = match context.fetch(&self.record.namespace, self.references.clone()).await {
            Ok(sources) => sources,
            Err(error) => {
                self.postpone(place, Obstacle::new("CreateContainerConfigError", error.to_string()));
                return;
            }
        };
        let needs = self.spec.containers.iter().chain(self.spec.init_containers.iter().flatten());
        let unmapped = needs
            .filter_map(|container| container.image.as_deref())
            .find(|image| crate::images::find(&context.images, image).is_none());
        if let Some(image) = unmapped.filter(|_| self.process.is_none()) {
            let obstacle = Obstacle::new("ErrImageNeverPull", crate::images::unmapped(image));
            self.postpone_image(obstacle);
            return;
        }
        if self.process.is_none()
            && let Err(obstacle) = self.make_sandbox(&sources).await
        {
            self.postpone(place, obstacle);
            return;
        }
        if let Err(obstacle) = self.start_container(place, &sources).await {
            self.postpone(place, obstacle);
        }
    }

    /// A pod may be bound while the processes of the one before it are still ending: its slots come free in a
    /// moment.
    async fn await_gpus(&mut self) {
        let count = self.asked_gpus();
        let (context, node, uid) = (self.context.clone(), self.record.node.clone(), self.record.uid.clone());
        let mut updates = self.updates.clone();
        let enough = async {
            loop {
                let mut freed = pin!(context.gpus_freed.notified());
                freed.as_mut().enable();
                let must_wait = {
                    let nodes = context.gpus.lock();
                    nodes.get(&node).is_some_and(|slots| slots.must_wait(&uid, count))
                };
                if !must_wait {
                    return;
                }
                freed.await;
            }
        };
        let enough = timeout(GPU_PATIENCE, enough);
        tokio::select! {
            _ = enough => {}
            // What is to be deleted needs none; the error says that the agent is stopping.
            _ = updates.wait_for(|pod| is_going(pod.as_deref())) => {}
        }
    }

    /// The pod is to be deleted, whether or not that was taken note of: nothing of it starts anymore.
    fn is_unwanted(&self) -> bool {
        is_going(self.updates.borrow().as_deref())
    }

    /// How many GPUs the pod asks for.
    fn asked_gpus(&self) -> u32 {
        let asked = |container: &k8s_openapi::api::core::v1::Container| {
            let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            let count = limits.and_then(|limits| limits.get(GPU)).and_then(|count| quantity::units(&count.0));
            count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
        };
        let main: u32 = self.spec.containers.iter().map(asked).sum();
        let init = self.spec.init_containers.iter().flatten().map(asked).max().unwrap_or(0);
        main.max(init)
    }

    /// Takes the GPUs the pod asks for. `false`: the pod was refused.
    fn admit(&mut self) -> bool {
        let count = self.asked_gpus();
        if count == 0 {
            return true;
        }
        let wish = self.pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(GPU_WISH));
        let wish = if self.record.gpus.is_empty() {
            wish.map(|text| parse_indices(text)).unwrap_or_default()
        } else {
            self.record.gpus.clone()
        };
        let taken = {
            let mut nodes = self.context.gpus.lock();
            nodes
                .get_mut(&self.record.node)
                .map_or(Err(0), |slots| slots.allocate(&self.record.uid, count, &wish))
        };
        match taken {
            Ok(indices) => {
                self.record.gpus = indices;
                true
            }
            Err(free) => {
                let message = format!(
                    "Pod was rejected: Allocate failed due to requested number of devices unavailable for {GPU}. \
                     Requested: {count}, Available: {free}, which is unexpected"
                );
                self.event(None, true, "UnexpectedAdmissionError", &message);
                self.overall.reason = Some("UnexpectedAdmissionError".to_owned());
                self.overall.message = Some(message);
                self.overall.finished = Some(false);
                false
            }
        }
    }

    /// Keeps the container waiting for what it lacks.
    fn postpone(&mut self, place: usize, obstacle: Obstacle) {
        let Some(run) = self.runs.get_mut(place) else { return };
        let name = run.name.clone();
        let phase =
            Phase::Waiting { reason: obstacle.reason.to_owned(), message: Some(obstacle.message.clone()) };
        if matches!(&run.phase, Phase::Waiting { message, .. } if *message == Some(obstacle.message.clone()))
        {
            self.retry_at = Some(Timestamp::now() + SignedDuration::from_millis(RETRY.as_millis() as i64));
            return;
        }
        if let Phase::Ended(termination) = &run.phase {
            run.last = Some(termination.clone());
        }
        run.phase = phase;
        self.retry_at = Some(Timestamp::now() + SignedDuration::from_millis(RETRY.as_millis() as i64));
        let reason = if obstacle.reason == "ContainerCreating" { "FailedMount" } else { "Failed" };
        self.event(Some(&name), true, reason, obstacle.message);
    }

    /// An image without a folder is a matter of every container that names it.
    fn postpone_image(&mut self, obstacle: Obstacle) {
        let images: Vec<(String, String)> = self
            .spec
            .containers
            .iter()
            .chain(self.spec.init_containers.iter().flatten())
            .map(|container| (container.name.clone(), container.image.clone().unwrap_or_default()))
            .filter(|(_, image)| crate::images::find(&self.context.images, image).is_none())
            .collect();
        for (name, image) in images {
            if let Some(run) = self.run_of(&name) {
                let message = Some(crate::images::unmapped(&image));
                run.phase = Phase::Waiting { reason: obstacle.reason.to_owned(), message };
            }
        }
        self.event(None, true, "ErrImageNeverPull", obstacle.message);
        // Only a new configuration of the node can change this.
        self.retry_at = Some(Timestamp::now() + SignedDuration::from_secs(3600));
    }

    fn hostname(&self) -> String {
        let name = self.spec.hostname.clone().filter(|name| !name.is_empty());
        let mut name = name.unwrap_or_else(|| self.record.name.clone());
        name.truncate(63);
        name.trim_end_matches(['-', '.']).to_owned()
    }

    fn set_address(&mut self, address: IpAddr) {
        self.record.address = Some(address);
        self.overall.pod_ip = Some(address.to_string());
        self.facts.pod_ip = address.to_string();
    }

    /// Where the pod can be dialled from here.
    pub(super) fn dial_address(&self) -> String {
        if self.overall.pod_ip.is_some() { self.facts.pod_ip.clone() } else { "127.0.0.1".to_owned() }
    }

    async fn make_sandbox(&mut self, sources: &Sources) -> Result<(), Obstacle> {
        let context = self.context.clone();
        let creating = |message: String| Obstacle::new("ContainerCreating", message);
        let sandbox = |message: String| {
            Obstacle::new("ContainerCreating", format!("Failed to create pod sandbox: {message}"))
        };
        let _permit = context.starts.acquire().await.map_err(|error| sandbox(error.to_string()))?;
        let io = |error: std::io::Error| sandbox(error.to_string());
        let own_network = self.has_own_network();
        if let (Some(networks), true, None) = (&context.network, own_network, &self.network) {
            // Kept while the pod waits for something else, so that its address stays.
            self.network = Some(networks.take().await.map_err(|error| sandbox(error.to_string()))?);
        }
        let address = match &self.network {
            Some(network) => IpAddr::V4(network.address),
            None if context.network.is_some() => context.host_ip,
            None => IpAddr::V4(context.next_light_address()),
        };
        self.set_address(address);
        let volumes =
            pod_volumes::prepare(&context, &self.pod, &self.spec, &self.directory, sources, &self.facts)
                .await
                .map_err(creating)?;
        self.record.volumes = volumes.prepared;
        self.record.peers = peers::join(&context.state_dir, &self.pod).map_err(io)?;
        self.record.save(&self.directory).map_err(io)?;
        self.write_names(address).map_err(io)?;
        let _ = fs::remove_file(self.directory.join(crate::init::SOCKET));
        let request = Sandbox {
            directory: self.directory.clone(),
            hostname: (self.spec.host_network != Some(true)).then(|| self.hostname()),
            isolated: context.isolated,
            user: context.user,
            overlay: context.overlay,
            share_processes: self.spec.share_process_namespace == Some(true),
            memory_volumes: volumes.memory,
        };
        let namespace = self.network.as_ref().map(|network| network.namespace.try_clone());
        let namespace = namespace.transpose().map_err(io)?;
        let process =
            context.spawner.spawn(request, namespace).await.map_err(|error| sandbox(error.to_string()))?;
        self.process = Some(process);
        self.overall.sandbox_ready = true;
        self.rotate_later();
        Ok(())
    }

    fn write_names(&self, address: IpAddr) -> std::io::Result<()> {
        let folder = self.directory.join("etc");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("hostname"), format!("{}\n", self.hostname()))?;
        if self.has_own_network() {
            let machine = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let server = services::NAME_SERVER.to_string();
            let text = resolver::render(&self.spec, &self.record.namespace, &server, &machine);
            fs::write(folder.join("resolv.conf"), text)?;
        }
        self.keep_names(address)
    }

    fn has_own_network(&self) -> bool {
        self.context.network.is_some() && self.spec.host_network != Some(true)
    }

    fn keep_names(&self, address: IpAddr) -> std::io::Result<()> {
        let aliases = self.spec.host_aliases.iter().flatten();
        // Without a mount namespace nobody reads the file, and with a network of its own the pod has a name server.
        let lists_services = self.context.isolated && !self.has_own_network();
        let identity = Identity {
            namespace: self.record.namespace.clone(),
            hostname: self.hostname(),
            subdomain: self.spec.subdomain.clone().filter(|name| !name.is_empty()),
            address,
            aliases: aliases
                .map(|alias| (alias.ip.clone(), alias.hostnames.clone().unwrap_or_default()))
                .collect(),
            lists_services,
        };
        self.context.names.add(self.directory.join("etc/hosts"), identity, &self.context.services.directory())
    }

    async fn start_container(&mut self, place: usize, sources: &Sources) -> Result<(), Obstacle> {
        let Some(run) = self.runs.get(place) else { return Ok(()) };
        let Some(container) = self.container(&run.name) else { return Ok(()) };
        let attempt = run.next_attempt();
        let hostname = self.hostname();
        self.context.services.listed().await;
        if self.is_unwanted() {
            return Ok(());
        }
        let frame = Frame {
            context: &self.context,
            pod: &self.pod,
            spec: &self.spec,
            directory: &self.directory,
            sources,
            facts: &self.facts,
            volumes: &self.record.volumes,
            gpus: &self.record.gpus,
            peers: self.record.peers.as_deref(),
            hostname: &hostname,
        };
        let start = container::build(&frame, &container, attempt)?;
        self.event(Some(&container.name), false, "Created", format!("Created container: {}", container.name));
        if let Some(run) = self.runs.get_mut(place) {
            note_restart(run);
        }
        if attempt > 1 {
            let old = container::log_path(&self.context, &self.pod, &container.name, attempt - 2);
            let _ = fs::remove_file(old);
        }
        reset_overlay(&start.directory);
        self.tell_init(&InitRequest::Start(Box::new(start))).await;
        Ok(())
    }

    /// Starts the probes and the postStart hook of a container that runs.
    pub(super) fn watch_container(&mut self, name: &str, attempt: u32) {
        let Some(container) = self.container(name) else { return };
        let address = self.dial_address();
        let hook_done = self.run_of(name).is_none_or(|run| run.hook_done);
        let words = self.words.0.clone();
        let tasks = self.tasks.entry(name.to_owned()).or_default();
        probes::watch(tasks, &words, &container, attempt, &address, hook_done);
    }

    pub(super) fn rotate_later(&mut self) {
        let wait = crate::volumes::token_rotation(&self.pod);
        self.rotate_at = wait.map(|seconds| Timestamp::now() + SignedDuration::from_secs(seconds));
    }

    /// Writes the files of volumes again after an object changed.
    pub(super) async fn refresh_volumes(&mut self) {
        if self.process.is_none() || self.overall.finished.is_some() {
            return;
        }
        let Ok(sources) = self.context.fetch(&self.record.namespace, self.references.clone()).await else {
            return;
        };
        let refreshed = pod_volumes::refresh(
            &self.context,
            &self.pod,
            &self.spec,
            &self.directory,
            &sources,
            &self.facts,
        )
        .await;
        if let Err(message) = refreshed {
            self.event(None, true, "FailedMount", message);
        }
    }
}

/// Whether a pod is deleted, or about to be.
fn is_going(newest: Option<&Pod>) -> bool {
    newest.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
}

/// A restarted container gets a fresh file tree.
fn reset_overlay(directory: &Path) {
    for name in ["upper", "work"] {
        let folder = directory.join(name);
        if folder.exists() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

impl super::super::context::Context {
    /// An address of the loopback network for a pod without a network of its own.
    pub(crate) fn next_light_address(&self) -> Ipv4Addr {
        let mut next = self.light_addresses.lock();
        *next = (*next + 1) % (1 << 16);
        Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 77, 0, 0)) + *next)
    }
}
