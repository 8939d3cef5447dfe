//! Keeps the objects of an owner in line with its selector.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use kube::core::{Selector, SelectorExt as _};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::Result;
use crate::informer::{Informer, Key, Object};
use crate::owners::{Claim, claim, controller_of, controller_reference};
use crate::queue::Queue;

/// The objects that the owner controls, after it took those that nobody controls and left those that its selector no
/// longer finds. What is taken gets `finalizer`, and what is left loses it.
pub(crate) async fn claimed<K, O>(
    client: &Client,
    informer: &Informer<K>,
    owner: &O,
    selector: &LabelSelector,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    claimed_where(client, informer, owner, selector, finalizer, |_| true).await
}

/// The same for an owner that takes only some of the objects that its selector finds.
pub(crate) async fn claimed_where<K, O>(
    client: &Client,
    informer: &Informer<K>,
    owner: &O,
    selector: &LabelSelector,
    finalizer: Option<&str>,
    takes: impl Fn(&K) -> bool,
) -> Result<Vec<Arc<K>>>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let selector = Selector::try_from(selector.clone())?;
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let mut own = Vec::new();
    for object in informer.in_namespace(namespace) {
        let matches = selector.matches(object.labels()) && takes(&object);
        let mut owners = object.owner_references().to_vec();
        match claim(owner.meta(), object.meta(), matches) {
            Claim::Ignore => {}
            Claim::Owned => own.push(object),
            Claim::Release => {
                owners.retain(|reference| Some(&reference.uid) != owner.meta().uid.as_ref());
                let rest = object.finalizers().iter().filter(|own| Some(own.as_str()) != finalizer);
                set_owners(client, informer, &*object, &owners, &rest.cloned().collect::<Vec<_>>()).await?;
            }
            Claim::Adopt => {
                let owners_api: Api<O> = Api::namespaced(client.clone(), namespace);
                let live = owners_api.get_metadata_opt(&owner.name_any()).await?;
                let same = |meta: &kube::api::ObjectMeta| {
                    meta.uid == owner.meta().uid && meta.deletion_timestamp.is_none()
                };
                if live.is_some_and(|live| same(&live.metadata)) {
                    owners.push(controller_reference(owner));
                    let mut finalizers = object.finalizers().to_vec();
                    let missing = finalizer.filter(|name| !finalizers.iter().any(|own| own == name));
                    finalizers.extend(missing.map(str::to_owned));
                    own.push(Arc::new(set_owners(client, informer, &*object, &owners, &finalizers).await?));
                }
            }
        }
    }
    Ok(own)
}

async fn set_owners<K>(
    client: &Client,
    informer: &Informer<K>,
    object: &K,
    owners: &[OwnerReference],
    finalizers: &[String],
) -> Result<K>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let api: Api<K> = Api::namespaced(client.clone(), object.meta().namespace.as_deref().unwrap_or_default());
    let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
    let finalizers = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
    let patch = json!({ "metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(), "ownerReferences": owners,
        "finalizers": finalizers,
    }});
    let parameters = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
    let written = api.patch(&object.name_any(), &parameters, &Patch::Merge(patch)).await?;
    informer.shows(&written).await?;
    Ok(written)
}

/// Has the owner of a pod that has changed looked at again; of a pod that nobody controls, each that may want it.
pub(crate) fn look_again<O>(
    queue: &Queue<Key>,
    owners: &Informer<O>,
    pod: &Pod,
    may_want: impl Fn(&O) -> bool,
) where
    O: Object + Resource<DynamicType = ()>,
{
    let namespace = pod.namespace().unwrap_or_default();
    match controller_of(&pod.metadata) {
        Some(owner) if owner.kind == O::kind(&()) => queue.add(Key::new(namespace, owner.name.clone())),
        Some(_) => {}
        None => {
            for owner in owners.in_namespace(&namespace).into_iter().filter(|owner| may_want(owner)) {
                queue.add(Key::of(&*owner));
            }
        }
    }
}
