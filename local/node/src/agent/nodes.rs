//! The Node objects of this machine: registration, status, and the lease that says the node is alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::context::Context;
use super::{Error, machine};
use crate::options::NodeDescription;
use crate::quantity;

const LEASE_SECONDS: u64 = 40;
const HEARTBEAT: Duration = Duration::from_secs(10);
const LEASE_NAMESPACE: &str = "kube-node-lease";
const ISOLATION: &str = "muster.dev/isolation";
const ISOLATION_REASON: &str = "muster.dev/isolation-reason";
/// As many pods a node takes; a bridge has room for about a thousand.
const PODS: &str = "500";

/// A Node object as it is registered.
#[derive(Debug, Clone)]
pub(super) struct NodeSpec {
    pub(super) name: String,
    pub(super) gpus: u32,
    pub(super) allocatable: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    light_because: Option<String>,
}

impl NodeSpec {
    pub(super) fn new(
        node: NodeDescription,
        isolation: &str,
        light_because: Option<&str>,
    ) -> Result<Self, Error> {
        let NodeDescription { name, mut labels, gpus, cpus, memory } = node;
        for (field, value) in [("cpus", &cpus), ("memory", &memory)] {
            if let Some(value) = value
                && quantity::milli(value).is_none()
            {
                return Err(Error::Quantity { node: name, field, value: value.clone() });
            }
        }
        let own = [
            ("kubernetes.io/hostname", name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
            (ISOLATION, isolation),
        ];
        for (key, value) in own {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        let mut allocatable: BTreeMap<String, String> = [
            ("cpu", cpus.unwrap_or_else(|| machine::cores().to_string())),
            ("memory", memory.unwrap_or_else(|| format!("{}Ki", machine::memory_bytes() / 1024))),
            ("pods", PODS.to_owned()),
            ("ephemeral-storage", "100Gi".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if gpus > 0 {
            allocatable.insert("nvidia.com/gpu".to_owned(), gpus.to_string());
        }
        Ok(Self { name, gpus, allocatable, labels, light_because: light_because.map(str::to_owned) })
    }

    fn object(&self) -> Value {
        let mut annotations = json!({});
        // An annotation of an earlier run must not outlive its reason.
        annotations[ISOLATION_REASON] = json!(self.light_because);
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels, "annotations": annotations},
        })
    }

    fn status(&self, context: &Context) -> Value {
        let now = Timestamp::now();
        let condition = |kind: &str, status: &str, reason: &str, message: &str| {
            json!({"type": kind, "status": status, "reason": reason, "message": message,
                   "lastHeartbeatTime": format!("{now:.0}"), "lastTransitionTime": format!("{now:.0}")})
        };
        let mut conditions = vec![
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "node has sufficient memory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "node has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "node has sufficient processes"),
            condition("Ready", "True", "KubeletReady", "the node agent runs"),
        ];
        let light = self.light_because.as_deref();
        conditions.push(match light {
            None => {
                condition("LightIsolation", "False", "NamespacesWork", "pods have namespaces of their own")
            }
            Some(reason) => condition("LightIsolation", "True", "NamespacesRefused", reason),
        });
        json!({"status": {
            "capacity": self.allocatable,
            "allocatable": self.allocatable,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": context.host_ip.to_string()},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
                "bootID": machine::line_of("/proc/sys/kernel/random/boot_id"),
                "containerRuntimeVersion": concat!("muster://", env!("CARGO_PKG_VERSION")),
                "kernelVersion": machine::line_of("/proc/sys/kernel/osrelease"),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.0",
                "machineID": machine::line_of("/etc/machine-id"),
                "operatingSystem": "linux",
                "osImage": os_image(),
                "systemUUID": "",
            },
        }})
    }
}

fn os_image() -> String {
    let text = fs_err::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Puts every Node into the API; returns those that were refused and why in the log, to be tried again.
pub(super) async fn register(context: &Context, nodes: &[NodeSpec]) -> bool {
    let mut complete = true;
    for node in nodes {
        if let Err(error) = register_one(context, node).await {
            tracing::warn!(node = %node.name, %error, "cannot register the node; trying again");
            complete = false;
        }
    }
    complete
}

async fn register_one(context: &Context, node: &NodeSpec) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(context.client.clone());
    let mut object = node.object();
    let patched = api.patch(&node.name, &PatchParams::default(), &Patch::Merge(&object)).await;
    match patched {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            if node.light_because.is_none() {
                object["metadata"]["annotations"] = json!({});
            }
            let object: Node = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &object).await?;
        }
        other => {
            other?;
        }
    }
    // The lease first: a node whose lease has run out is not believed.
    beat(context, node).await?;
    api.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(node.status(context))).await?;
    Ok(())
}

/// Renews the leases until the agent ends.
pub(super) async fn keep_alive(context: Arc<Context>, nodes: Vec<NodeSpec>, mut registered: bool) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.tick().await;
    loop {
        if !registered {
            tokio::time::sleep(Duration::from_secs(1)).await;
            registered = register(&context, &nodes).await;
            continue;
        }
        ticks.tick().await;
        for node in &nodes {
            if let Err(error) = vouch(&context, node).await {
                tracing::debug!(node = %node.name, %error, "cannot renew the lease");
            }
        }
    }
}

/// Renews the lease; a node that was given up while the agent was silent takes pods again.
async fn vouch(context: &Context, node: &NodeSpec) -> Result<(), kube::Error> {
    beat(context, node).await?;
    let api: Api<Node> = Api::all(context.client.clone());
    let status = api.get_status(&node.name).await?.status.unwrap_or_default();
    let is_ready = |condition: &NodeCondition| condition.type_ == "Ready" && condition.status == "True";
    if !status.conditions.iter().flatten().any(is_ready) {
        api.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(node.status(context))).await?;
    }
    Ok(())
}

async fn beat(context: &Context, node: &NodeSpec) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(context.client.clone(), LEASE_NAMESPACE);
    let now = Timestamp::now();
    let spec = json!({
        "holderIdentity": node.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": format!("{now:.6}"),
    });
    let patch = json!({"spec": spec});
    match api.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            let lease = json!({"metadata": {"name": node.name, "namespace": LEASE_NAMESPACE}, "spec": spec});
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}
