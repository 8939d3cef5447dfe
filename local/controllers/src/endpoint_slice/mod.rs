//! Keeps the endpoint slices of services.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams};
use kube::{Client, Resource as _, ResourceExt as _};
pub(crate) use plan::is_served;
use plan::{MANAGED_BY, MANAGER, SERVICE_NAME, plan, selects};

use crate::error::{Result, gone_is_fine};
use crate::events::post_params;
use crate::informer::{Change, Informer, Key};
use crate::informers::Informers;
use crate::queue::Queue;
use crate::worker::Reconcile;

/// The endpoint slice controller.
pub(crate) struct EndpointSlices {
    client: Client,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    pods: Arc<Informer<Pod>>,
    queue: Queue<Key>,
}

/// The service that a slice of this controller belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.labels();
    (labels.get(MANAGED_BY).map(String::as_str) == Some(MANAGER)).then_some(())?;
    Some(Key::new(slice.namespace().unwrap_or_default(), labels.get(SERVICE_NAME)?))
}

/// What of a pod reaches the slices.
fn relevant(pod: &Pod) -> impl PartialEq {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    (
        (crate::pods::is_finished(pod), crate::pods::is_ready(pod), crate::pods::is_terminating(pod)),
        status.and_then(|status| status.pod_ip.clone()),
        spec.and_then(|spec| spec.node_name.clone()),
        pod.metadata.labels.clone(),
    )
}

impl EndpointSlices {
    pub(crate) fn new(client: Client, informers: &Informers) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            services: informers.services.clone(),
            slices: informers.slices.clone(),
            pods: informers.pods.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.services.on_change(move |change| {
            if let Some(service) = change.latest() {
                own.queue.add(Key::of(&**service));
            }
        });
        let own = controller.clone();
        informers.slices.on_change(move |change| {
            if let Some(key) = change.latest().and_then(|slice| service_of(slice)) {
                own.queue.add(key);
            }
        });
        let own = controller.clone();
        informers.pods.on_change(move |change| own.pod_changed(change));
        controller
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        if let (Some(old), Some(new)) = (change.old, change.new)
            && relevant(old) == relevant(new)
        {
            return;
        }
        let Some(pod) = change.latest() else { return };
        let labels: Vec<&BTreeMap<String, String>> = [change.old, change.new]
            .into_iter()
            .flatten()
            .filter_map(|pod| pod.meta().labels.as_ref())
            .collect();
        for service in self.services.in_namespace(&pod.namespace().unwrap_or_default()) {
            if labels.iter().any(|labels| selects(&service, labels)) {
                self.queue.add(Key::of(&*service));
            }
        }
    }
}

impl Reconcile for EndpointSlices {
    type Key = Key;

    const NAME: &'static str = "endpointslice-controller";

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        // Slices of a service that is gone go with it, as it owns them.
        let Some(service) = self.services.get(key) else { return Ok(None) };
        if !is_served(&service) {
            return Ok(None);
        }
        let mut slices = self.slices.in_namespace(&key.namespace);
        slices.retain(|slice| service_of(slice).as_ref() == Some(key));
        let pods = self.pods.in_namespace(&key.namespace);
        let selected = pods.iter().map(|pod| &**pod).filter(|pod| selects(&service, pod.labels()));
        let plan = plan(&service, selected, &slices);
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for slice in &plan.create {
            let written = api.create(&post_params(), slice).await?;
            self.slices.shows(&written).await?;
        }
        for slice in &plan.update {
            let written = api.replace(&slice.name_any(), &post_params(), slice).await?;
            self.slices.shows(&written).await?;
        }
        for name in &plan.delete {
            gone_is_fine(api.delete(name, &DeleteParams::background()).await)?;
        }
        Ok(None)
    }
}
