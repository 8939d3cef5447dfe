//! Watches besides the one on pods: endpoints become names, ConfigMaps and Secrets wake the pods that wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};

use super::context::Context;
use crate::hosts::Endpoint;
use crate::sources::Reference;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name of a slice.
type SliceKey = (String, String);
/// The service of a slice and its ready endpoints.
type Slice = (String, Vec<Endpoint>);
type Slices = BTreeMap<SliceKey, Slice>;
/// Namespaces and names of services that changed.
type Touched = BTreeSet<(String, String)>;

/// Keeps the hosts files current.
pub(super) async fn follow_services(context: Arc<Context>) {
    let api: Api<EndpointSlice> = Api::all(context.client.clone());
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut slices: Slices = BTreeMap::new();
    let mut listed: Option<Slices> = None;
    let mut touched: Touched = BTreeSet::new();
    while let Some(event) = events.next().await {
        let mut event = Some(event);
        // A change rewrites a file per pod: what came together is written together.
        while let Some(next) = event {
            note(next, &mut slices, &mut listed, &mut touched);
            event = events.next().now_or_never().flatten();
        }
        publish(&context, &slices, std::mem::take(&mut touched));
    }
}

fn note(
    event: watcher::Result<watcher::Event<EndpointSlice>>,
    slices: &mut Slices,
    listed: &mut Option<Slices>,
    touched: &mut Touched,
) {
    let mut touch = |((namespace, _), (service, _)): (&SliceKey, &Slice)| {
        touched.insert((namespace.clone(), service.clone()));
    };
    match event {
        Ok(watcher::Event::Init) => *listed = Some(Slices::new()),
        Ok(watcher::Event::InitApply(slice)) => {
            if let (Some(listed), Some((key, value))) = (listed, read(&slice)) {
                listed.insert(key, value);
            }
        }
        Ok(watcher::Event::InitDone) => {
            slices.iter().for_each(&mut touch);
            *slices = listed.take().unwrap_or_default();
            slices.iter().for_each(touch);
        }
        Ok(watcher::Event::Apply(slice)) => {
            let Some((key, value)) = read(&slice) else { return };
            touch((&key, &value));
            if let Some(old) = slices.insert(key.clone(), value) {
                touch((&key, &old));
            }
        }
        Ok(watcher::Event::Delete(slice)) => {
            let key = (slice.namespace().unwrap_or_default(), slice.name_any());
            if let Some(old) = slices.remove(&key) {
                touch((&key, &old));
            }
        }
        Err(error) => tracing::debug!(%error, "the watch on endpoints was interrupted"),
    }
}

fn publish(context: &Context, slices: &Slices, touched: Touched) {
    if touched.is_empty() {
        return;
    }
    context.names.update(|services| {
        for (namespace, service) in &touched {
            let endpoints = slices
                .iter()
                .filter(|((other, _), (name, _))| other == namespace && name == service)
                .flat_map(|(_, (_, endpoints))| endpoints.clone());
            services.set(namespace, service, endpoints.collect());
        }
    });
}

fn read(slice: &EndpointSlice) -> Option<(SliceKey, Slice)> {
    let service = slice.labels().get(SERVICE_NAME)?.clone();
    let mut endpoints = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false);
        let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
        endpoints.extend(
            addresses
                .filter(|_| ready)
                .map(|address| Endpoint { address, hostname: endpoint.hostname.clone() }),
        );
    }
    Some(((slice.namespace()?, slice.name_any()), (service, endpoints)))
}

/// Tells workers that a ConfigMap changed.
pub(super) async fn follow_config_maps(context: Arc<Context>) {
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::all(context.client.clone());
    let events = watcher(api, watcher::Config::default());
    follow(context, events.default_backoff().boxed(), Reference::ConfigMap).await;
}

/// Tells workers that a Secret changed.
pub(super) async fn follow_secrets(context: Arc<Context>) {
    let api: Api<PartialObjectMeta<Secret>> = Api::all(context.client.clone());
    let events = watcher(api, watcher::Config::default());
    follow(context, events.default_backoff().boxed(), Reference::Secret).await;
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
