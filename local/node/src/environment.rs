//! The environment of a container and the values that come from the pod itself (downward API). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::expand::expand;
use crate::quantity;
use crate::sources::{Reference, Sources};

/// What the pod's object does not say but the node knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Address of the pod.
    pub(crate) pod_ip: String,
    /// Address of the node.
    pub(crate) host_ip: String,
    /// Allocatable resources of the node: the limit where a container sets none.
    pub(crate) allocatable: BTreeMap<String, String>,
}

/// Why a value cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The object does not exist (yet).
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    /// The object does not exist (yet).
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    /// The object lacks the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// Which key.
        key: String,
        /// ConfigMap or Secret.
        kind: &'static str,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
    },
    /// The path names no field that can be read.
    #[error(
        "fieldPath \"{0}\" is not supported: use metadata.*, spec.nodeName, spec.serviceAccountName or status.*IP"
    )]
    Field(String),
    /// The resource is not one that containers have.
    #[error("resource \"{0}\" cannot be read by resourceFieldRef")]
    Resource(String),
    /// The container does not exist.
    #[error("container \"{0}\" not found")]
    Container(String),
}

/// The variables of `container`. `base` comes first and is overridden by the pod's own.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
    base: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, Error> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |known: &mut BTreeMap<String, String>, name: String, value: String| {
        if known.insert(name.clone(), value.clone()).is_some() {
            variables.retain(|(other, _)| *other != name);
        }
        variables.push((name, value));
    };
    for (name, value) in base {
        set(&mut known, name, value);
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (reference, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => (Reference::ConfigMap(map.name.clone()), map.optional),
            (_, Some(secret)) => (Reference::Secret(secret.name.clone()), secret.optional),
            _ => continue,
        };
        match sources.entries(&reference) {
            Some(entries) => {
                for (key, value) in entries {
                    set(&mut known, format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
                }
            }
            None if optional == Some(true) => {}
            None => return Err(missing(reference)),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                Some(expand(variable.value.as_deref().unwrap_or_default(), |name| known.get(name).cloned()))
            }
            Some(source) => value_from(pod, container, source, sources, facts)?,
        };
        if let Some(value) = value {
            set(&mut known, variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// Arguments with the container's variables put in.
pub(crate) fn expand_all(texts: &[String], variables: &[(String, String)]) -> Vec<String> {
    let lookup =
        |name: &str| variables.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    texts.iter().map(|text| expand(text, lookup)).collect()
}

fn missing(reference: Reference) -> Error {
    match reference {
        Reference::ConfigMap(name) => Error::NoConfigMap(name),
        Reference::Secret(name) => Error::NoSecret(name),
    }
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, Error> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let keyed = |reference: Reference, kind, key: &str, optional: Option<bool>| {
        let name = match &reference {
            Reference::ConfigMap(name) | Reference::Secret(name) => name.clone(),
        };
        let optional = optional == Some(true);
        match sources.entries(&reference).map(|entries| entries.get(key)) {
            Some(Some(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            _ if optional => Ok(None),
            Some(None) => Err(Error::NoKey { key: key.to_owned(), kind, namespace: namespace.clone(), name }),
            None => Err(missing(reference)),
        }
    };
    if let Some(key) = &source.config_map_key_ref {
        return keyed(Reference::ConfigMap(key.name.clone()), "ConfigMap", &key.key, key.optional);
    }
    if let Some(key) = &source.secret_key_ref {
        return keyed(Reference::Secret(key.name.clone()), "Secret", &key.key, key.optional);
    }
    if let Some(selector) = &source.field_ref {
        return field(pod, selector, facts).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return resource(pod, Some(container), selector, facts).map(Some);
    }
    Ok(Some(String::new()))
}

/// A field of the pod as text.
pub(crate) fn field(pod: &Pod, selector: &ObjectFieldSelector, facts: &Facts) -> Result<String, Error> {
    let path = selector.field_path.as_str();
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(Error::Field(path.to_owned())),
        };
        return Ok(text(map.and_then(|map| map.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "metadata.labels" => map_lines(metadata.labels.as_ref()),
        "metadata.annotations" => map_lines(metadata.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".to_owned())
        }
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        other => return Err(Error::Field(other.to_owned())),
    })
}

fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// A limit or request of a container as a whole number.
pub(crate) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, Error> {
    let named = selector.container_name.as_ref().filter(|name| !name.is_empty());
    let container = match named {
        None => own.ok_or_else(|| Error::Container(String::new()))?,
        Some(name) => pod
            .spec
            .iter()
            .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
            .find(|container| container.name == *name)
            .ok_or_else(|| Error::Container(name.clone()))?,
    };
    let unknown = || Error::Resource(selector.resource.clone());
    let (section, resource) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let set = match section {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unknown()),
    }
    .and_then(|set| set.get(resource))
    .map(|quantity| quantity.0.clone());
    let quantity = match (set, section) {
        (Some(quantity), _) => quantity,
        (None, "limits") => facts.allocatable.get(resource).cloned().ok_or_else(unknown)?,
        (None, _) => "0".to_owned(),
    };
    let divisor = selector.divisor.as_ref().map_or("1", |divisor| divisor.0.as_str());
    let divisor = if matches!(divisor, "" | "0") { "1" } else { divisor };
    quantity::divided(&quantity, divisor).map(|number| number.to_string()).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "x\"y"},
                         "annotations": {"k/v": "note"}},
            "spec": {"nodeName": "node-0", "containers": [{"name": "c",
                "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}},
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}},
                            {"secretRef": {"name": "absent", "optional": true}}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)-$(P_key)-$(C)-$$(A)"},
                    {"name": "BASE", "value": "own"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "no", "optional": true}}}
                ]}]}
        }))
        .unwrap()
    }

    fn sources() -> Sources {
        let mut sources = Sources::default();
        sources.add_config_map("m", serde_json::from_value(json!({"data": {"key": "v"}})).unwrap());
        sources.add_secret("s", serde_json::from_value(json!({"data": {"k": "c2VjcmV0"}})).unwrap());
        sources
    }

    fn facts() -> Facts {
        Facts {
            pod_ip: "10.244.0.9".into(),
            host_ip: "10.244.0.1".into(),
            allocatable: [("memory".to_owned(), "2Gi".to_owned())].into(),
        }
    }

    #[test]
    fn every_form_of_a_variable() {
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let base = vec![("BASE".to_owned(), "node".to_owned())];
        let variables = environment(&pod, container, &sources(), &facts(), base).unwrap();
        let text: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text,
            [
                "P_key=v",
                "A=1",
                "B=1-v-$(C)-$(A)",
                "BASE=own",
                "IP=10.244.0.9",
                "L=1",
                "CPU=2",
                "MEM=2048",
                "S=secret"
            ]
        );
        assert_eq!(
            expand_all(&["$(A)$(B)".to_owned(), "$(X)".to_owned()], &variables),
            ["11-v-$(C)-$(A)", "$(X)"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let result = environment(&pod, container, &Sources::default(), &facts(), vec![]);
        assert_eq!(result, Err(Error::NoConfigMap("m".into())));
        let labels = ObjectFieldSelector { field_path: "metadata.labels".into(), ..Default::default() };
        assert_eq!(field(&pod, &labels, &facts()).unwrap(), "a=\"1\"\nb=\"x\\\"y\"");
        let odd = ObjectFieldSelector { field_path: "spec.x".into(), ..Default::default() };
        assert!(field(&pod, &odd, &facts()).is_err());
    }
}
