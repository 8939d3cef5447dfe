//! Jobs in the cache of their controller.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{ApiResource, DynamicObject};
use kube::core::{DynamicResourceScope, TypeMeta};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// A job as it is kept from one look at it to the next: encoded, which is several times smaller than parsed. A
/// controller may have many thousands, and looks at few at a time.
#[derive(Debug, Clone)]
pub(crate) struct KeptJob {
    types: Option<TypeMeta>,
    metadata: ObjectMeta,
    /// The rest as JSON.
    data: Box<str>,
}

impl KeptJob {
    /// The whole job.
    pub(crate) fn read(&self) -> serde_json::Result<DynamicObject> {
        let data: Value = serde_json::from_str(&self.data)?;
        Ok(DynamicObject { types: self.types.clone(), metadata: self.metadata.clone(), data })
    }
}

impl<'de> Deserialize<'de> for KeptJob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let DynamicObject { types, metadata, data } = DynamicObject::deserialize(deserializer)?;
        let data = serde_json::to_string(&data).map_err(de::Error::custom)?.into_boxed_str();
        Ok(Self { types, metadata, data })
    }
}

impl Resource for KeptJob {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(resource)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(resource)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(resource)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(resource)
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::api_version(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_kept_whole() {
        let job = json!({
            "apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob",
            "metadata": {"name": "a", "namespace": "b", "uid": "c", "labels": {"team": "vision"}},
            "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}}},
            "status": {"conditions": []},
        });
        let kept: KeptJob = serde_json::from_value(job.clone()).unwrap();
        assert_eq!(kept.meta().name.as_deref(), Some("a"));
        assert_eq!(serde_json::to_value(kept.read().unwrap()).unwrap(), job);
    }
}
