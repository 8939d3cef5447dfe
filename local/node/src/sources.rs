//! The objects a pod reads its variables and files from: which it names, and what was found. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};

/// A ConfigMap or Secret of the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    /// A ConfigMap by name.
    ConfigMap(String),
    /// A Secret by name.
    Secret(String),
}

/// Keys and contents of an object.
pub(crate) type Entries = BTreeMap<String, Vec<u8>>;

/// What was found of what a pod names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    found: BTreeMap<Reference, Entries>,
}

impl Sources {
    /// Adds the entries of an object.
    pub(crate) fn add(&mut self, reference: Reference, entries: Entries) -> &Entries {
        let slot = self.found.entry(reference).or_default();
        *slot = entries;
        slot
    }

    /// Adds a ConfigMap.
    pub(crate) fn add_config_map(&mut self, name: &str, object: ConfigMap) -> &Entries {
        let text = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
        let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
        self.add(Reference::ConfigMap(name.to_owned()), text.chain(binary).collect())
    }

    /// Adds a Secret.
    pub(crate) fn add_secret(&mut self, name: &str, object: Secret) {
        let data = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        self.add(Reference::Secret(name.to_owned()), data);
    }

    /// The entries of an object.
    pub(crate) fn entries(&self, reference: &Reference) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.found.get(reference)
    }
}

/// Everything the pod names, found or not, needed or optional.
pub(crate) fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    let Some(spec) = &pod.spec else { return found };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        container_references(container, &mut found);
    }
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            found.insert(Reference::ConfigMap(source.name.clone()));
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.clone()) {
            found.insert(Reference::Secret(name));
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(map) = &source.config_map {
                found.insert(Reference::ConfigMap(map.name.clone()));
            }
            if let Some(secret) = &source.secret {
                found.insert(Reference::Secret(secret.name.clone()));
            }
        }
    }
    found
}

fn container_references(container: &Container, found: &mut BTreeSet<Reference>) {
    for source in container.env_from.iter().flatten() {
        if let Some(map) = &source.config_map_ref {
            found.insert(Reference::ConfigMap(map.name.clone()));
        }
        if let Some(secret) = &source.secret_ref {
            found.insert(Reference::Secret(secret.name.clone()));
        }
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(key) = &source.config_map_key_ref {
            found.insert(Reference::ConfigMap(key.name.clone()));
        }
        if let Some(key) = &source.secret_key_ref {
            found.insert(Reference::Secret(key.name.clone()));
        }
    }
}
