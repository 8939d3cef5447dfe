//! Reads what others wrote down about where nodes are: `Topology` of Kueue and KAI, Volcano's `HyperNode`; and about their
//! insides: `NodeResourceTopology`, `ResourceSlice`.

use std::time::Duration;

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::{Client, discovery};
use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_topology::Topology;
use muster_scheduler_topology::import::{Insides, TopologySources};
use serde_json::Value;

/// Group and kind of objects with levels.
const TOPOLOGIES: [(&str, &str); 2] = [("kueue.x-k8s.io", "Topology"), ("kai.scheduler", "Topology")];
/// Group and kind of objects with domains.
const HYPER_NODES: (&str, &str) = ("topology.volcano.sh", "HyperNode");

/// Group and kind of objects with the NUMA zones of a node.
const NODE_ZONES: (&str, &str) = ("topology.node.k8s.io", "NodeResourceTopology");
/// Group and kind of objects with the devices of a node.
const NODE_DEVICES: (&str, &str) = ("resource.k8s.io", "ResourceSlice");

/// Pause after something that the API server refused.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Changes are followed after this long at the latest.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// All such objects of the cluster; none of kinds that are not installed, or that the reader may not see.
///
/// # Errors
/// What else the API server answers.
pub async fn read(client: &Client) -> Result<TopologySources, kube::Error> {
    let mut sources = TopologySources::default();
    for kind in TOPOLOGIES {
        sources.topologies.extend(list(client, kind).await?);
    }
    sources.hyper_nodes = list(client, HYPER_NODES).await?;
    sources.insides = insides(client).await?;
    Ok(sources)
}

async fn insides(client: &Client) -> Result<Insides, kube::Error> {
    let (zones, devices) = (list(client, NODE_ZONES).await?, list(client, NODE_DEVICES).await?);
    Ok(Insides::read(GPU_RESOURCE, &zones, &devices))
}

/// Tells what there is, and again whenever it has changed, for as long as somebody listens: `tell` answers whether
/// anybody does. Networks are rebuilt rarely, so the objects are read now and then instead of being watched.
/// A tree that was given counts before all else.
pub(crate) async fn follow(client: &Client, tree: Option<Topology>, tell: impl Fn(TopologySources) -> bool) {
    let mut known = None;
    loop {
        let found = match &tree {
            Some(tree) => insides(client).await.map(|insides| TopologySources {
                tree: Some(tree.clone()),
                insides,
                ..TopologySources::default()
            }),
            None => read(client).await,
        };
        match found {
            Ok(sources) if known.as_ref() == Some(&sources) => {}
            Ok(sources) => {
                known = Some(sources.clone());
                if !tell(sources) {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(error = %muster_machinery::hint::chain(&error), "cannot read where nodes are");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
}

async fn list(client: &Client, kind: (&str, &str)) -> Result<Vec<Value>, kube::Error> {
    let Some(resource) = find(client, kind).await? else { return Ok(Vec::new()) };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match api.list(&ListParams::default()).await {
        Ok(list) => list
            .items
            .iter()
            .map(|object| serde_json::to_value(object).map_err(kube::Error::SerdeError))
            .collect(),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            tracing::debug!(kind = kind.1, group = kind.0, status = %status.message, "not read");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The most stable version of a kind that the server has.
pub(crate) async fn find(
    client: &Client,
    (group, kind): (&str, &str),
) -> Result<Option<ApiResource>, kube::Error> {
    let group = match discovery::group(client, group).await {
        Ok(group) => group,
        Err(kube::Error::Discovery(_)) => return Ok(None),
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut kinds = group.resources_by_stability().into_iter().map(|(resource, _)| resource);
    Ok(kinds.find(|resource| resource.kind == kind))
}
