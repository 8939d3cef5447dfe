//! What is looked up of a cluster's nodes when a job is submitted.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use muster_batch_core::gpus;
use muster_batch_core::job::GPU_MODEL;

use crate::connect::Connection;
use crate::error::{Error, USAGE};

/// What the embedded cluster's nodes call their runtime.
const OUR_RUNTIME: &str = "muster://";
/// Variable with the image of jobs that name none.
pub(crate) const IMAGE: &str = "MUSTER_BATCH_IMAGE";

/// The nodes of a cluster; not known to those who may not see them.
#[derive(Debug)]
pub(crate) struct Nodes(Option<Vec<Node>>);

impl Nodes {
    /// Reads them.
    pub(crate) async fn read(connection: &Connection) -> Self {
        let nodes: Api<Node> = Api::all(connection.client.clone());
        Self(nodes.list(&ListParams::default()).await.ok().map(|list| list.items))
    }

    /// Whether there is a node that has the image `host`, which is the machine itself.
    fn has_host_image(&self) -> bool {
        let runtime = |node: &Node| {
            let info = node.status.as_ref()?.node_info.as_ref()?;
            Some(info.container_runtime_version.starts_with(OUR_RUNTIME))
        };
        // Who may not see the nodes is told by the pod.
        self.0.as_ref().is_none_or(|nodes| nodes.iter().any(|node| runtime(node) == Some(true)))
    }

    /// Refuses a job without an image where every node wants one.
    ///
    /// # Errors
    /// It has none, and needs one.
    pub(crate) fn check_image(&self, image: Option<&String>) -> Result<(), Error> {
        if image.is_some() || self.has_host_image() {
            return Ok(());
        }
        Err(Error::new("--image is needed: the nodes of this cluster run container images, and none is named")
            .with_code(USAGE)
            .with_hint(format!("add --image IMAGE, or a line `#MUSTER --image IMAGE` to a script, or set {IMAGE}; the image needs /bin/sh and what is called in it")))
    }

    /// The models of GPUs that a type means.
    ///
    /// # Errors
    /// No node has such GPUs.
    pub(crate) fn models(&self, type_: &str) -> Result<Vec<String>, Error> {
        let Some(nodes) = &self.0 else { return Ok(vec![type_.to_owned()]) };
        let label = |node: &Node| node.metadata.labels.as_ref()?.get(GPU_MODEL).cloned();
        let known: Vec<String> = nodes.iter().filter_map(label).collect();
        let models = gpus::models(type_, known.iter().map(String::as_str));
        if !models.is_empty() {
            return Ok(models.into_iter().collect());
        }
        let mut known = known;
        known.sort_unstable();
        known.dedup();
        let error = Error::new(format!("no node has GPUs of type {type_}")).with_code(USAGE);
        Err(match known.as_slice() {
            [] => error.with_hint(format!("no node has the label {GPU_MODEL}; ask for GPUs without a type")),
            known => error.with_hint(format!("by their label {GPU_MODEL} there are {}", known.join(", "))),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes(runtime: &str, models: &[&str]) -> Nodes {
        let node = |model: &&str| {
            serde_json::from_value(json!({
                "metadata": { "labels": { GPU_MODEL: model } },
                "status": { "nodeInfo": { "architecture": "", "bootID": "", "containerRuntimeVersion": runtime,
                    "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "",
                    "operatingSystem": "", "osImage": "", "systemUUID": "" } },
            }))
            .unwrap()
        };
        Nodes(Some(models.iter().map(node).collect()))
    }

    #[test]
    fn a_cluster_that_runs_images_wants_one() {
        let (real, ours) = (nodes("containerd://2.1", &["x"]), nodes("muster://0.1.0", &["x"]));
        let error = real.check_image(None).unwrap_err();
        assert!(error.message().contains("--image is needed"), "{error}");
        assert!(error.hint().unwrap().contains(IMAGE), "{error}");
        assert!(real.check_image(Some(&"i".to_owned())).is_ok() && ours.check_image(None).is_ok());
        assert!(Nodes(None).check_image(None).is_ok(), "nobody knows");
    }

    #[test]
    fn a_type_that_no_node_has_is_refused_and_what_there_is_named() {
        let known = nodes("containerd://2.1", &["NVIDIA-A100-SXM4-80GB", "Tesla-V100"]);
        assert_eq!(known.models("a100").unwrap(), ["NVIDIA-A100-SXM4-80GB"]);
        let error = known.models("h100").unwrap_err();
        assert_eq!(error.message(), "no node has GPUs of type h100");
        assert!(error.hint().unwrap().contains("NVIDIA-A100-SXM4-80GB, Tesla-V100"));
        assert_eq!(Nodes(None).models("h100").unwrap(), ["h100"]);
    }
}
