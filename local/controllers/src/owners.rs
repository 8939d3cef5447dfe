//! Who owns an object, and taking or leaving objects that a selector finds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// The owner that controls the object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The uid of the owner that controls the object.
pub(crate) fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    controller_of(meta).map(|owner| owner.uid.as_str())
}

/// The reference that makes `owner` control an object and wait for it in a foreground deletion.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What a controller does with an object that it might own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the controller's.
    Owned,
    /// The selector finds it and nobody controls it.
    Adopt,
    /// The selector does not find it any more.
    Release,
    /// It is none of the controller's business.
    Ignore,
}

/// Decides what the owner does with an object whose labels the owner's selector matches or not.
pub(crate) fn claim(owner: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    let leaving = owner.deletion_timestamp.is_some() || object.deletion_timestamp.is_some();
    match controller_uid(object) {
        Some(uid) if Some(uid) == owner.uid.as_deref() => {
            if matches || owner.deletion_timestamp.is_some() {
                Claim::Owned
            } else {
                Claim::Release
            }
        }
        None if matches && !leaving => Claim::Adopt,
        _ => Claim::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, controller: Option<&str>) -> ObjectMeta {
        let owner = |uid: &str| OwnerReference {
            uid: uid.into(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta {
            uid: Some(uid.into()),
            owner_references: controller.map(|uid| vec![owner(uid)]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_selector_takes_orphans_and_leaves_what_it_no_longer_finds() {
        let owner = meta("o", None);
        assert_eq!(claim(&owner, &meta("p", None), true), Claim::Adopt);
        assert_eq!(claim(&owner, &meta("p", None), false), Claim::Ignore);
        assert_eq!(claim(&owner, &meta("p", Some("o")), true), Claim::Owned);
        assert_eq!(claim(&owner, &meta("p", Some("o")), false), Claim::Release);
        assert_eq!(claim(&owner, &meta("p", Some("x")), true), Claim::Ignore);
    }

    #[test]
    fn an_owner_on_its_way_out_takes_nothing_new() {
        let mut owner = meta("o", None);
        owner.deletion_timestamp = Some(k8s_openapi::jiff::Timestamp::UNIX_EPOCH.into());
        assert_eq!(claim(&owner, &meta("p", None), true), Claim::Ignore);
        assert_eq!(claim(&owner, &meta("p", Some("o")), false), Claim::Owned);
    }
}
