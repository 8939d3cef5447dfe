//! Watches besides those on pods and services: ConfigMaps and Secrets wake the pods that wait for them.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};

use super::context::Context;
use crate::sources::Reference;

/// Tells workers that a ConfigMap changed.
pub(super) async fn follow_config_maps(context: Arc<Context>) {
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::all(context.client.clone());
    let events = watcher(api, watcher::Config::default());
    follow(context, events.backoff(muster_machinery::watch::backoff()).boxed(), Reference::ConfigMap).await;
}

/// Tells workers that a Secret changed.
pub(super) async fn follow_secrets(context: Arc<Context>) {
    let api: Api<PartialObjectMeta<Secret>> = Api::all(context.client.clone());
    let events = watcher(api, watcher::Config::default());
    follow(context, events.backoff(muster_machinery::watch::backoff()).boxed(), Reference::Secret).await;
}

async fn follow<K>(
    context: Arc<Context>,
    mut events: futures::stream::BoxStream<'static, watcher::Result<watcher::Event<PartialObjectMeta<K>>>>,
    reference: impl Fn(String) -> Reference,
) {
    while let Some(event) = events.next().await {
        if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event {
            let namespace = object.metadata.namespace.unwrap_or_default();
            let name = object.metadata.name.unwrap_or_default();
            // Nobody listens while there is no pod.
            let _ = context.changes.send((namespace, reference(name)));
        }
    }
}
