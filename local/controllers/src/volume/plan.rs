//! Which volume a claim gets, and what becomes of a volume. Pure.

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

/// The provisioner that makes folders.
pub(crate) const PROVISIONER: &str = "muster.dev/folder";
/// The storage class that every cluster has.
pub(crate) const STANDARD: &str = "standard";
/// Annotation of the class for claims that name none.
pub(crate) const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// Annotation of a volume with the name of its provisioner.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Finalizer of a claim that pods may use.
pub(crate) const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// What a claim without a volume gets.
#[derive(Debug, PartialEq)]
pub(crate) enum Binding {
    /// An existing volume, by name.
    Existing(String),
    /// A new folder of this class.
    Provision(Box<StorageClass>),
    /// Nothing yet.
    Wait,
}

fn bytes(quantity: Option<&Quantity>) -> i64 {
    let value = quantity.map(|quantity| serde_json::Value::from(quantity.0.clone()));
    value
        .and_then(|value| muster_admission::quantity::Quantity::from_json(&value))
        .map_or(0, muster_admission::quantity::Quantity::value)
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    let spec = claim.spec.as_ref()?;
    spec.resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn default_class(classes: &[impl AsRef<StorageClass>]) -> Option<&StorageClass> {
    let marked =
        |class: &&StorageClass| class.annotations().get(IS_DEFAULT).is_some_and(|value| value == "true");
    classes
        .iter()
        .map(AsRef::as_ref)
        .filter(marked)
        .max_by_key(|class| class.metadata.creation_timestamp.clone())
}

/// The claim refers to exactly this claim, or to its name before it was created.
pub(crate) fn refers_to(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.namespace == claim.metadata.namespace
        && reference.name == claim.metadata.name
        && (reference.uid.is_none() || reference.uid == claim.metadata.uid)
}

/// Chooses the volume of a claim.
pub(crate) fn choose(
    claim: &PersistentVolumeClaim,
    volumes: &[impl AsRef<PersistentVolume>],
    classes: &[impl AsRef<StorageClass>],
) -> Binding {
    let Some(spec) = &claim.spec else { return Binding::Wait };
    if let Some(name) = spec.volume_name.clone().filter(|name| !name.is_empty()) {
        return Binding::Existing(name);
    }
    let class_name = match &spec.storage_class_name {
        Some(name) => Some(name.as_str()),
        None => default_class(classes).and_then(|class| class.metadata.name.as_deref()),
    };
    let volumes = || volumes.iter().map(AsRef::as_ref);
    let reserved = volumes().find(|volume| {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        reference.is_some_and(|reference| refers_to(reference, claim))
    });
    if let Some(volume) = reserved {
        return Binding::Existing(volume.name_any());
    }
    let fitting = volumes().filter(|volume| fits(claim, class_name.unwrap_or_default(), volume));
    if let Some(volume) = fitting.min_by_key(|volume| (capacity(volume), volume.metadata.name.clone())) {
        return Binding::Existing(volume.name_any());
    }
    let class = classes.iter().map(AsRef::as_ref).find(|class| class.metadata.name.as_deref() == class_name);
    match class.filter(|class| class_name.is_some() && class.provisioner == PROVISIONER) {
        Some(class) => Binding::Provision(Box::new(class.clone())),
        None => Binding::Wait,
    }
}

fn capacity(volume: &PersistentVolume) -> i64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    bytes(capacity.and_then(|capacity| capacity.get("storage")))
}

fn fits(claim: &PersistentVolumeClaim, class: &str, volume: &PersistentVolume) -> bool {
    let (Some(wanted), Some(offered)) = (&claim.spec, &volume.spec) else { return false };
    let available = volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Released");
    let offers = |mode| offered.access_modes.iter().flatten().any(|own| own == mode);
    offered.claim_ref.is_none()
        && available
        && volume.metadata.deletion_timestamp.is_none()
        && offered.storage_class_name.as_deref().unwrap_or_default() == class
        && wanted.access_modes.iter().flatten().all(offers)
        && capacity(volume) >= bytes(requested(claim))
        && selector_allows(claim, volume)
}

fn selector_allows(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    use kube::core::{Selector, SelectorExt as _};
    let Some(selector) = claim.spec.as_ref().and_then(|spec| spec.selector.clone()) else { return true };
    Selector::try_from(selector).is_ok_and(|selector| selector.matches(volume.labels()))
}

/// The folder of a claim; none when the names would leave the folder of all volumes.
pub(crate) fn folder(volumes_dir: &Path, namespace: &str, claim: &str) -> Option<PathBuf> {
    let normal = |name: &str| {
        let mut parts = Path::new(name).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
    };
    (normal(namespace) && normal(claim)).then(|| volumes_dir.join(namespace).join(claim))
}

/// A volume for a claim, reserved for it.
pub(crate) fn provision(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    folder: &Path,
) -> PersistentVolume {
    let uid = claim.uid().unwrap_or_default();
    let spec = claim.spec.as_ref();
    let capacity = requested(claim).map(|size| [("storage".to_owned(), size.clone())].into());
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(format!("pvc-{uid}")),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.and_then(|spec| spec.access_modes.clone()),
            capacity,
            claim_ref: Some(reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: folder.to_string_lossy().into_owned(),
                type_: Some("DirectoryOrCreate".into()),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone().or_else(|| Some("Delete".into())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".into()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// A reference to a claim.
pub(crate) fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.namespace(),
        name: Some(claim.name_any()),
        uid: claim.uid(),
        ..ObjectReference::default()
    }
}

/// The folder that goes with a volume: only one that this provisioner made.
pub(crate) fn folder_to_remove(volume: &PersistentVolume, volumes_dir: &Path) -> Option<PathBuf> {
    let ours = volume.annotations().get(PROVISIONED_BY).map(String::as_str) == Some(PROVISIONER);
    let spec = volume.spec.as_ref().filter(|_| ours)?;
    let claim = spec.claim_ref.as_ref()?;
    let folder = folder(volumes_dir, claim.namespace.as_deref()?, claim.name.as_deref()?)?;
    (Path::new(&spec.host_path.as_ref()?.path) == folder).then_some(folder)
}

/// Whether a pod that has not ended mounts the claim.
pub(crate) fn is_used_by(claim: &str, pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = |volume: &k8s_openapi::api::core::v1::Volume| {
        volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim)
    };
    !crate::pods::is_finished(pod) && volumes.into_iter().any(names)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Held<T>(T);

    impl<T> AsRef<T> for Held<T> {
        fn as_ref(&self) -> &T {
            &self.0
        }
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let meta = json!({ "name": "c", "namespace": "n", "uid": "u" });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    fn class(name: &str, provisioner: &str) -> Held<StorageClass> {
        let annotations = if name == STANDARD { json!({ IS_DEFAULT: "true" }) } else { json!({}) };
        let value =
            json!({ "metadata": { "name": name, "annotations": annotations }, "provisioner": provisioner });
        Held(serde_json::from_value(value).unwrap())
    }

    fn volume(name: &str, size: &str) -> Held<PersistentVolume> {
        Held(
            serde_json::from_value(json!({
                "metadata": { "name": name },
                "spec": { "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"] },
            }))
            .unwrap(),
        )
    }

    fn volumes() -> [Held<PersistentVolume>; 0] {
        []
    }

    #[test]
    fn a_claim_without_a_class_gets_a_folder_of_the_default_class() {
        let classes = [class("slow", "other"), class(STANDARD, PROVISIONER)];
        assert_eq!(
            choose(&claim(json!({})), &volumes(), &classes),
            Binding::Provision(Box::new(classes[1].0.clone()))
        );
        assert_eq!(
            choose(&claim(json!({ "storageClassName": "slow" })), &volumes(), &classes),
            Binding::Wait
        );
    }

    #[test]
    fn a_claim_with_an_empty_class_gets_the_smallest_volume_that_fits() {
        let spec = json!({
            "storageClassName": "", "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "2Gi" } },
        });
        let offered = [volume("big", "10Gi"), volume("small", "1Gi"), volume("right", "3Gi")];
        let classes = [class(STANDARD, PROVISIONER)];
        assert_eq!(choose(&claim(spec.clone()), &offered, &classes), Binding::Existing("right".into()));
        assert_eq!(choose(&claim(spec), &offered[1..2], &classes), Binding::Wait);
    }

    #[test]
    fn names_cannot_leave_the_folder_of_volumes() {
        let root = Path::new("/v");
        assert_eq!(folder(root, "n", "c"), Some("/v/n/c".into()));
        assert_eq!(folder(root, "..", "c"), None);
        assert_eq!(folder(root, "n", "../../etc"), None);
        assert_eq!(folder(root, "n", "/etc"), None);
        assert_eq!(folder(root, "n", ""), None);
    }

    #[test]
    fn only_a_folder_of_our_own_making_is_removed() {
        let made = provision(&claim(json!({})), &class(STANDARD, PROVISIONER).0, Path::new("/v/n/c"));
        assert_eq!(folder_to_remove(&made, Path::new("/v")), Some("/v/n/c".into()));
        let mut moved = made.clone();
        moved.spec.as_mut().unwrap().host_path.as_mut().unwrap().path = "/home".into();
        assert_eq!(folder_to_remove(&moved, Path::new("/v")), None);
        let mut foreign = made;
        foreign.metadata.annotations = None;
        assert_eq!(folder_to_remove(&foreign, Path::new("/v")), None);
    }
}
