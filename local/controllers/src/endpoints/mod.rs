//! Keeps the `Endpoints` object of every service beside its slices, for clients that read no slices.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints as Object, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt as _};

use crate::endpoint_slice::{is_served, service_of};
use crate::error::{Result, gone_is_fine};
use crate::events::post_params;
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::queue::Queue;
use crate::worker::Reconcile;

/// Changes that come within this time are written together: these objects are read by people, not by pods.
const PAUSE: Duration = Duration::from_millis(500);

/// The endpoints controller.
pub(crate) struct Endpoints {
    client: Client,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    objects: Arc<Informer<Object>>,
    queue: Queue<Key>,
}

impl Endpoints {
    pub(crate) fn new(client: Client, informers: &Informers) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            services: informers.services.clone(),
            slices: informers.slices.clone(),
            objects: informers.endpoints.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.services.on_change(move |change| {
            if let Some(service) = change.latest() {
                own.queue.add_after(Key::of(&**service), PAUSE);
            }
        });
        let own = controller.clone();
        informers.slices.on_change(move |change| {
            if let Some(key) = change.latest().and_then(|slice| service_of(slice)) {
                own.queue.add_after(key, PAUSE);
            }
        });
        let own = controller.clone();
        informers.endpoints.on_change(move |change| {
            if let Some(object) = change.latest() {
                own.queue.add_after(Key::of(&**object), PAUSE);
            }
        });
        controller
    }
}

impl Reconcile for Endpoints {
    type Key = Key;

    const NAME: &'static str = "endpoint-controller";

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let existing = self.objects.get(key);
        let api: Api<Object> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(service) = self.services.get(key) else {
            let own = existing.filter(|object| {
                object.labels().get(plan::MANAGED_BY).is_some_and(|manager| manager == plan::MANAGER)
            });
            if let Some(own) = own.filter(|object| object.metadata.deletion_timestamp.is_none()) {
                gone_is_fine(api.delete(&key.name, &DeleteParams::default()).await)?;
                self.objects.shows_deletion(key, own.metadata.uid.as_deref()).await?;
            }
            return Ok(None);
        };
        if !is_served(&service) {
            return Ok(None);
        }
        let mut slices = self.slices.in_namespace(&key.namespace);
        slices.retain(|slice| service_of(slice).as_ref() == Some(key));
        let wanted = plan::wanted(&service, slices.iter().map(|slice| &**slice));
        let written = match existing {
            None => api.create(&post_params(), &wanted).await?,
            Some(existing) if plan::is_current(&existing, &wanted) => return Ok(None),
            Some(existing) => {
                let mut changed = wanted;
                changed.metadata.resource_version = existing.resource_version();
                api.replace(&key.name, &post_params(), &changed).await?
            }
        };
        self.objects.shows(&written).await?;
        Ok(None)
    }
}
