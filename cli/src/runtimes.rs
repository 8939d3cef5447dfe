//! The runtimes of training jobs that come with Muster.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use muster_node::ImageRule;
use muster_trainer_api::train_job::names::{GROUP, RESOURCE_IN_USE, VERSION};
use serde_json::{Value, json};

use crate::error::Error;
use crate::kinds::Kinds;
use crate::manifest::{self, Document};

const FILE: (&str, &str) = ("deploy/runtimes.yaml", include_str!("../../deploy/runtimes.yaml"));
/// Where Kubeflow's client expects the trainer, and the version whose kinds are served.
const SYSTEM_NAMESPACE: &str = "kubeflow-system";
const SERVED: &str = "v2.3.0";
/// Longest wait for a definition to be served.
const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Their manifests.
pub(crate) fn documents() -> Result<Vec<Document>, Error> {
    Ok(manifest::parse(Path::new(FILE.0), FILE.1)?)
}

/// This machine stands in for their images: what is installed here is what jobs find.
pub(crate) fn image_rules() -> Result<Vec<ImageRule>, Error> {
    let mut images = Vec::new();
    for document in documents()? {
        let groups = &document.object["spec"]["template"]["spec"]["replicatedJobs"];
        let pods = groups.as_array().into_iter().flatten();
        let containers = pods.flat_map(|group| {
            group["template"]["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten()
        });
        images.extend(containers.filter_map(|container| Some(container["image"].as_str()?.to_owned())));
    }
    images.sort();
    images.dedup();
    Ok(images.into_iter().map(|image| ImageRule::new(image, "/")).collect())
}

/// Tells Kubeflow's `TrainerClient` which trainer is there, where it looks for that.
async fn announce(client: &Client) -> Result<(), Error> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let maps = Api::<ConfigMap>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let parameters = PatchParams::apply("muster").force();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}});
    namespaces.patch(SYSTEM_NAMESPACE, &parameters, &Patch::Apply(namespace)).await?;
    let name = "kubeflow-trainer-public";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"kubeflow_trainer_version": SERVED}});
    maps.patch(name, &parameters, &Patch::Apply(map)).await?;
    Ok(())
}

/// Applies them to the embedded cluster, where their definition has just been installed. One that a person has changed
/// stays as it is.
pub(crate) async fn install(client: &Client) -> Result<(), Error> {
    announce(client).await?;
    let kind = GroupVersionKind::gvk(GROUP, VERSION, "ClusterTrainingRuntime");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    for document in documents()? {
        let applied = tokio::time::timeout(DEADLINE, apply(&api, &document.object)).await;
        applied
            .map_err(|_| Error::new("the definition of ClusterTrainingRuntime is not served in time"))??;
    }
    Ok(())
}

async fn apply(api: &Api<DynamicObject>, object: &Value) -> Result<(), Error> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let parameters = PatchParams::apply("muster");
    loop {
        match api.patch(name, &parameters, &Patch::Apply(object)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => tokio::time::sleep(PAUSE).await,
            // Somebody has changed it.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            other => return other.map(drop).map_err(Error::from),
        }
    }
}

/// Lets go of every runtime, so that it can be deleted where no controller does that any more.
pub(crate) async fn free(client: &Client, kinds: &Kinds) -> Result<(), Error> {
    let version = format!("{GROUP}/{VERSION}");
    for kind in ["ClusterTrainingRuntime", "TrainingRuntime"] {
        let Some(kind) = kinds.of(&version, kind) else { continue };
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource);
        for runtime in all.list_metadata(&ListParams::default()).await? {
            if !runtime.finalizers().iter().any(|finalizer| finalizer == RESOURCE_IN_USE) {
                continue;
            }
            let left: Vec<_> =
                runtime.finalizers().iter().filter(|finalizer| *finalizer != RESOURCE_IN_USE).collect();
            let api: Api<DynamicObject> = match runtime.namespace() {
                Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &kind.resource),
                None => all.clone(),
            };
            let patch = json!({"metadata": {"uid": runtime.uid(), "finalizers": left}});
            match api.patch_metadata(&runtime.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
            {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_trainer_api::train_job::{ClusterTrainingRuntime, label};

    use super::*;

    #[test]
    fn the_shipped_runtimes_are_kubeflows() {
        let names = ["torch", "deepspeed", "mlx", "jax", "xgboost"].map(|name| format!("{name}-distributed"));
        let documents = documents().unwrap();
        assert_eq!(documents.iter().map(Document::name).collect::<Vec<_>>(), names);
        for document in &documents {
            let runtime: ClusterTrainingRuntime = serde_json::from_value(document.object.clone()).unwrap();
            let framework = &runtime.metadata.labels.unwrap()[label::FRAMEWORK];
            assert_eq!(format!("{framework}-distributed"), document.name());
        }
        assert_eq!(image_rules().unwrap().len(), 5);
    }
}
