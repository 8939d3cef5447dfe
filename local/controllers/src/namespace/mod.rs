//! The life of namespaces: one that lives keeps its default service account, an ending one loses its
//! content and then itself.

mod conditions;

use std::sync::Arc;
use std::time::Duration;

use conditions::{Remains, conditions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::{Client, ResourceExt as _};

use crate::catalogue::{Catalogue, Kind};
use crate::error::{Result, existing_is_fine, gone_is_fine};
use crate::events::post_params;
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::monitor::{Monitor, Sighting};
use crate::queue::Queue;
use crate::worker::Reconcile;

const DEFAULT_ACCOUNT: &str = "default";
/// Pause before an ending namespace is looked at again although nothing in it was seen to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// The namespace controller.
pub(crate) struct Namespaces {
    client: Client,
    catalogue: Arc<Catalogue>,
    cache: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    queue: Queue<Key>,
}

impl Namespaces {
    pub(crate) fn new(
        client: Client,
        catalogue: Arc<Catalogue>,
        informers: &Informers,
        monitor: &Monitor,
    ) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            catalogue,
            cache: informers.namespaces.clone(),
            accounts: informers.accounts.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.namespaces.on_change(move |change| {
            if let Some(namespace) = change.new {
                own.queue.add(Key::of(&**namespace));
            }
        });
        let own = controller.clone();
        informers.accounts.on_change(move |change| {
            if let (Some(old), None) = (change.old, change.new) {
                own.queue.add(Key::new("", old.namespace().unwrap_or_default()));
            }
        });
        let own = controller.clone();
        monitor.on_sighting(move |sighting| {
            let Sighting::Gone(subject) = sighting else { return };
            let key = Key::new("", subject.key.namespace.clone());
            let ends = |namespace: Arc<Namespace>| namespace.metadata.deletion_timestamp.is_some();
            if !key.name.is_empty() && own.cache.get(&key).is_some_and(ends) {
                own.queue.add(key);
            }
        });
        controller
    }

    async fn furnish(&self, namespace: &str) -> Result<()> {
        if self.accounts.get(&Key::new(namespace, DEFAULT_ACCOUNT)).is_none() {
            let account = ServiceAccount {
                metadata: ObjectMeta { name: Some(DEFAULT_ACCOUNT.into()), ..ObjectMeta::default() },
                ..ServiceAccount::default()
            };
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
            existing_is_fine(api.create(&post_params(), &account).await)?;
        }
        Ok(())
    }

    /// Deletes what is left in the namespace and says what stays all the same.
    async fn empty(&self, namespace: &str) -> Result<Remains> {
        let mut remains = Remains::default();
        for kind in self.catalogue.refresh().await?.iter().filter(|kind| kind.namespaced) {
            for object in self.clear(kind, namespace).await? {
                let resource = format!("{}.{}", kind.resource.plural, kind.resource.group);
                *remains.objects.entry(resource).or_default() += 1;
                for finalizer in object.metadata.finalizers.into_iter().flatten() {
                    *remains.finalizers.entry(finalizer).or_default() += 1;
                }
            }
        }
        Ok(remains)
    }

    async fn clear(&self, kind: &Kind, namespace: &str) -> Result<Vec<PartialObjectMeta<DynamicObject>>> {
        let api = kind.api(&self.client, namespace);
        let all = ListParams::default();
        let before = api.list_metadata(&all).await?.items;
        if before.iter().all(|object| object.metadata.deletion_timestamp.is_some()) {
            return Ok(before);
        }
        let background = DeleteParams::background();
        for object in before.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
            gone_is_fine(api.delete(&object.name_any(), &background).await)?;
        }
        Ok(api.list_metadata(&all).await?.items)
    }

    async fn end(&self, namespace: &Namespace) -> Result<Option<Duration>> {
        let name = namespace.name_any();
        let remains = self.empty(&name).await?;
        let api: Api<Namespace> = Api::all(self.client.clone());
        if remains.is_empty() {
            let mut finished = namespace.clone();
            if let Some(finalizers) = finished.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
                finalizers.retain(|finalizer| finalizer != "kubernetes");
            }
            // The revision would only let a change of labels hold up the end.
            finished.metadata.resource_version = None;
            gone_is_fine(api.replace_subresource("finalize", &name, &post_params(), &finished).await)?;
            return Ok(None);
        }
        let before =
            namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let wanted = conditions(&before, &remains, Timestamp::now());
        if wanted != before {
            let mut changed = namespace.clone();
            changed.metadata.resource_version = None;
            changed.status =
                Some(NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(wanted) });
            gone_is_fine(api.replace_status(&name, &post_params(), &changed).await)?;
        }
        Ok(Some(PATIENCE))
    }
}

impl Reconcile for Namespaces {
    type Key = Key;

    const NAME: &'static str = "namespace-controller";

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(namespace) = self.cache.get(key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return self.end(&namespace).await;
        }
        self.furnish(&key.name).await?;
        Ok(None)
    }
}
