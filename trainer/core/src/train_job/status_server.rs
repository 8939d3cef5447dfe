//! How pods find the server that takes their progress: as Kubeflow's trainer tells them (its proposal 2779), so that
//! its SDK and the callbacks of other libraries report without a change.

use k8s_openapi::api::core::v1::{
    DownwardAPIProjection, DownwardAPIVolumeFile, ObjectFieldSelector, VolumeProjection,
};
use muster_trainer_api::train_job::names::annotation::STATUS_SERVER_CA;
use muster_trainer_api::train_job::names::{GROUP, NODE, VERSION};

use super::env;
use super::render::{Draft, container, is_trainer, pods};
use crate::pod_token::{self, TOKEN};

const VOLUME: &str = "kubeflow-trainer-token";
const FOLDER: &str = "/var/run/secrets/kubeflow/trainer";
const AUTHORITY: &str = "ca.crt";

/// The server that takes the progress of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusServer {
    /// Its address, such as `https://muster-rendezvous.muster-system.svc:9446`.
    pub address: String,
    /// Its certificate authority, PEM.
    pub authority: String,
}

/// Where the progress of a job is posted on the server.
pub fn status_path(namespace: &str, job: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/trainjobs/{job}/status")
}

/// For whom the tokens are by which pods of a job say who they are: for nothing but its progress.
pub fn status_audience(namespace: &str, job: &str) -> String {
    format!("{GROUP}{}", status_path(namespace, job))
}

impl StatusServer {
    /// Tells the containers that train. The authority is an annotation, so that it needs no object of its own, and may
    /// still change while the job is suspended.
    pub(super) fn tell(&self, draft: &mut Draft<'_>) {
        let namespace = draft.job.metadata.namespace.clone().unwrap_or_default();
        let name = draft.name().to_owned();
        let variables = [
            env::value(
                "KUBEFLOW_TRAINER_SERVER_URL",
                format!("{}{}", self.address, status_path(&namespace, &name)),
            ),
            env::value("KUBEFLOW_TRAINER_SERVER_CA_CERT", format!("{FOLDER}/{AUTHORITY}")),
            env::value("KUBEFLOW_TRAINER_SERVER_TOKEN", format!("{FOLDER}/{TOKEN}")),
        ];
        for group in draft.spec.replicated_jobs.iter_mut().filter(|group| is_trainer(group)) {
            let Some(node) = container(group, NODE) else { continue };
            env::set(&mut node.env, &variables);
            pod_token::mount(node, VOLUME, FOLDER);
            let template = pods(group);
            let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
            annotations.insert(STATUS_SERVER_CA.to_owned(), self.authority.clone());
            let token = pod_token::projection(status_audience(&namespace, &name));
            pod_token::put_volume(template.spec.get_or_insert_default(), VOLUME, vec![token, authority()]);
        }
    }
}

/// The server's authority, from the pod's annotation.
fn authority() -> VolumeProjection {
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: format!("metadata.annotations['{STATUS_SERVER_CA}']"),
    };
    let file =
        DownwardAPIVolumeFile { path: AUTHORITY.to_owned(), field_ref: Some(field), ..Default::default() };
    VolumeProjection {
        downward_api: Some(DownwardAPIProjection { items: Some(vec![file]) }),
        ..VolumeProjection::default()
    }
}
