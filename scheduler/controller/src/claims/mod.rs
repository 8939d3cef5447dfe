//! Watches devices and claims of them, once pods have claims: most clusters have none. And writes on claims what their
//! pods get.

mod reserve;

use std::pin::pin;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Pod, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams, ObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use muster_scheduler_core::ClaimKey;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::observe::{Change, Relisting};
use crate::planner::{Availability, DeviceEvent, DeviceKind};

pub(crate) use reserve::{ClaimVersions, give_back};

/// A kind of object that describes devices or claims.
trait Described:
    Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static
{
    const KIND: DeviceKind;

    /// It is there, and looks so.
    fn seen(self) -> DeviceEvent;

    /// It is gone.
    fn gone(namespace: &str, name: &str) -> DeviceEvent;
}

impl Described for ResourceClaim {
    const KIND: DeviceKind = DeviceKind::Claims;

    fn seen(self) -> DeviceEvent {
        DeviceEvent::Claim(Box::new(self))
    }

    fn gone(namespace: &str, name: &str) -> DeviceEvent {
        DeviceEvent::ClaimGone(ClaimKey::new(namespace, name))
    }
}

impl Described for DeviceClass {
    const KIND: DeviceKind = DeviceKind::Classes;

    fn seen(self) -> DeviceEvent {
        DeviceEvent::Class(Box::new(self))
    }

    fn gone(_: &str, name: &str) -> DeviceEvent {
        DeviceEvent::ClassGone(name.to_owned())
    }
}

impl Described for ResourceSlice {
    const KIND: DeviceKind = DeviceKind::Slices;

    fn seen(self) -> DeviceEvent {
        DeviceEvent::Slice(Box::new(self))
    }

    fn gone(_: &str, name: &str) -> DeviceEvent {
        DeviceEvent::SliceGone(name.to_owned())
    }
}

/// All devices, classes and claims as they are now; of kinds that cannot be read, why.
pub(crate) async fn list(client: &Client) -> Vec<DeviceEvent> {
    let mut events = list_kind::<ResourceSlice>(client).await;
    events.extend(list_kind::<DeviceClass>(client).await);
    events.extend(list_kind::<ResourceClaim>(client).await);
    events
}

async fn list_kind<K: Described>(client: &Client) -> Vec<DeviceEvent> {
    let api: Api<K> = Api::all(client.clone());
    let (objects, availability) = match api.list(&ListParams::default()).await {
        Ok(list) => (list.items, Availability::Read),
        Err(kube::Error::Api(status)) if status.code == 404 => (Vec::new(), Availability::Absent),
        Err(error) => (Vec::new(), Availability::Refused(muster_machinery::hint::chain(&error))),
    };
    let seen = objects.into_iter().map(Described::seen);
    seen.chain([DeviceEvent::Kind(K::KIND, availability)]).collect()
}

/// Makes, in thought only, the claims of a pod that is not there, from templates that are; the pod names them then.
pub(crate) async fn suppose(client: &Client, pod: &mut Pod) -> Result<Vec<DeviceEvent>, kube::Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<ResourceClaimTemplate> = Api::namespaced(client.clone(), &namespace);
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    let claims = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let mut supposed = Vec::new();
    let mut statuses = Vec::new();
    for claim in claims {
        let Some(template) = &claim.resource_claim_template_name else { continue };
        let Some(template) = api.get_opt(template).await? else { continue };
        let object = format!("{name}-{}", claim.name);
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: name.clone(),
            uid: uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let metadata = ObjectMeta {
            name: Some(object.clone()),
            namespace: Some(namespace.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        supposed.push(ResourceClaim { metadata, spec: template.spec.spec, status: None }.seen());
        let (name, resource_claim_name) = (claim.name.clone(), Some(object));
        statuses.push(PodResourceClaimStatus { name, resource_claim_name });
    }
    pod.status.get_or_insert_default().resource_claim_statuses = Some(statuses);
    Ok(supposed)
}

/// Tells all devices, classes and claims from tasks of `tasks`, for as long as somebody listens: `tell` answers whether
/// anybody does.
pub(crate) fn watch(
    client: &Client,
    tell: &(impl Fn(DeviceEvent) -> bool + Clone + Send + 'static),
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(watch_kind::<ResourceSlice>(client.clone(), tell.clone()));
    tasks.spawn(watch_kind::<DeviceClass>(client.clone(), tell.clone()));
    tasks.spawn(watch_kind::<ResourceClaim>(client.clone(), tell.clone()));
}

async fn watch_kind<K: Described>(client: Client, tell: impl Fn(DeviceEvent) -> bool) {
    let api: Api<K> = Api::all(client);
    let mut events =
        pin!(watcher(api, watcher::Config::default()).backoff(muster_machinery::watch::backoff()));
    let mut known = Relisting::default();
    loop {
        let mut news = Vec::new();
        let mut hear = |known: &mut Relisting, event: Event<K>| {
            known.hear(event, |change| {
                news.push(match change {
                    Change::Seen(object) => object.clone().seen(),
                    Change::Gone { namespace, name, .. } => K::gone(namespace, name),
                });
            });
        };
        let availability = match events.try_next().await {
            Ok(Some(event)) => {
                let listed = matches!(event, Event::InitDone);
                hear(&mut known, event);
                listed.then_some(Availability::Read)
            }
            Ok(None) => return,
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                // The kind is not installed, or not any more: there are none of it.
                hear(&mut known, Event::Init);
                hear(&mut known, Event::InitDone);
                Some(Availability::Absent)
            }
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 403 => {
                Some(Availability::Refused(status.message))
            }
            Err(error) => {
                tracing::debug!(%error, kind = %K::kind(&()), "the watch broke; resuming");
                None
            }
        };
        news.extend(availability.map(|availability| DeviceEvent::Kind(K::KIND, availability)));
        if !news.into_iter().all(&tell) {
            return;
        }
    }
}

/// Whether a claim is meant, and not a successor of its name.
fn is_meant(claim: &ResourceClaim, uid: &str) -> bool {
    claim.uid().as_deref() == Some(uid)
}
