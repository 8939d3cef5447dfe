//! Clients of a running cluster.

use std::path::Path;

use anyhow::{Context, Result};
use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Where the measurements work.
pub(crate) const NAMESPACE: &str = "default";

/// A client with connections of its own.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("the cluster's kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The pods of the namespace that change from now on.
pub(crate) async fn watch_pods(client: &Client) -> Result<impl Stream<Item = Result<(Change, Pod)>> + use<>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let version = api.list_metadata(&ListParams::default()).await?.metadata.resource_version;
    let version = version.context("a list without a version")?;
    let events = api.watch(&WatchParams::default(), &version).await?;
    let changes = events.map_err(anyhow::Error::from).try_filter_map(|event| async {
        Ok(match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => Some((Change::Seen, pod)),
            WatchEvent::Deleted(pod) => Some((Change::Gone, pod)),
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(status) => return Err(anyhow::anyhow!("the watch broke: {}", status.message)),
        })
    });
    Ok(Box::pin(changes))
}

/// What became of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there.
    Seen,
    /// It was deleted.
    Gone,
}

/// Its phase, such as `Running`.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
