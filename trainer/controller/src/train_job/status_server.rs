//! The server that pods tell how far they have come, as Kubeflow's trainer has it (its proposal 2779): a POST with the
//! pod's token and `{"trainerStatus": {...}}`.
//!
//! A caller speaks for itself alone. What it says becomes an annotation of its own pod, which the token names, and only if
//! that is the first one of the job in the address; the job's status repeats it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use muster_scheduler_api::annotations::STEP_SECONDS;
use muster_trainer_api::jobset::label::JOBSET_NAME;
use muster_trainer_api::train_job::TrainerStatus;
use muster_trainer_api::train_job::names::annotation::TRAINER_STATUS;
use muster_trainer_core::train_job::{status_audience, status_path};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::first_pods::is_first;
use super::progress::{LONGEST, problem};
use crate::caller::{self, pod_of_token};

/// How long a caller may take to say it.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many are answered at the same time.
const AT_ONCE: usize = 256;

/// What a pod says, and is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    trainer_status: TrainerStatus,
}

/// Why a call has changed nothing.
#[derive(Debug)]
struct Refusal {
    code: StatusCode,
    message: String,
}

fn refusal(code: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

/// The server, without its connections.
#[derive(Clone)]
pub struct Reports {
    client: Client,
    /// For those who are answered at the same time; each is a few requests to the API server.
    places: Arc<Semaphore>,
}

impl Reports {
    /// Asks the API server about callers through this client.
    pub fn new(client: Client) -> Self {
        Self { client, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Answers a call.
    pub async fn answer<B>(self, request: Request<B>) -> Response<String>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Ok(_place) = self.places.try_acquire() else {
            return response(Err(refusal(StatusCode::TOO_MANY_REQUESTS, "too many report at the same time")));
        };
        response(take(&self.client, request).await)
    }
}

fn response(result: Result<Said, Refusal>) -> Response<String> {
    let (code, content) = match result {
        Ok(said) => (StatusCode::OK, json!(said)),
        Err(Refusal { code, message }) => {
            tracing::debug!(%code, message, "a report of progress was refused");
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
                "code": code.as_u16()});
            (code, status)
        }
    };
    let mut response = Response::new(content.to_string());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

async fn take<B>(client: &Client, request: Request<B>) -> Result<Said, Refusal>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some((namespace, job)) = job_of_path(request.uri().path()) else {
        let expected = status_path("NAMESPACE", "NAME");
        return Err(refusal(StatusCode::NOT_FOUND, format!("the progress of a job is posted to {expected}")));
    };
    if request.method() != Method::POST {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "progress is posted"));
    }
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(|token| token.trim().to_owned());
    let token = token.ok_or_else(|| {
        refusal(
            StatusCode::UNAUTHORIZED,
            "no token: KUBEFLOW_TRAINER_SERVER_TOKEN names the file with the pod's",
        )
    })?;
    let pod = pod_of_token(client, token, status_audience(&namespace, &job)).await;
    let pod = pod.map_err(|error| match error {
        caller::Error::Refused(why) => refusal(StatusCode::UNAUTHORIZED, why),
        caller::Error::Unknown(why) => refusal(StatusCode::SERVICE_UNAVAILABLE, why),
    })?;
    let is_of_job =
        pod.namespace().as_deref() == Some(&namespace) && pod.labels().get(JOBSET_NAME) == Some(&job);
    if !is_of_job || !is_first(&pod) {
        let message = format!("pod {} is not the first one of TrainJob {namespace}/{job}", pod.name_any());
        return Err(refusal(StatusCode::FORBIDDEN, message));
    }
    let mut said = read(request.into_body()).await?;
    said.trainer_status.last_updated_time.get_or_insert_with(|| Time(Timestamp::now()));
    write(client, &pod, &said.trainer_status).await?;
    Ok(said)
}

/// Namespace and name of the job whose progress is posted to a path.
fn job_of_path(path: &str) -> Option<(String, String)> {
    let mut parts = path.split('/');
    let (namespace, job) = (parts.nth(5)?, parts.nth(1)?);
    (path == status_path(namespace, job)).then(|| (namespace.to_owned(), job.to_owned()))
}

async fn read<B>(body: B) -> Result<Said, Refusal>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = tokio::time::timeout(PATIENCE, Limited::new(body, LONGEST).collect()).await;
    let body = body.map_err(|_| refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
    let body = body.map_err(|error| refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("the body: {error}")))?;
    let said: Said = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, format!("the body: {error}")))?;
    match problem(&said.trainer_status) {
        Some(problem) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("trainerStatus.{problem}"))),
        None => Ok(said),
    }
}

async fn write(client: &Client, pod: &Pod, status: &TrainerStatus) -> Result<(), Refusal> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    // One of the same name that came meanwhile has said nothing yet.
    let mut annotations = BTreeMap::from([(TRAINER_STATUS, json!(status).to_string())]);
    annotations.extend(step_seconds(status).map(|seconds| (STEP_SECONDS, seconds.to_string())));
    let patch = json!({"metadata": {"uid": pod.uid(), "annotations": annotations}});
    let written = pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    written.map(drop).map_err(|error| {
        refusal(StatusCode::SERVICE_UNAVAILABLE, format!("the progress cannot be written: {error}"))
    })
}

/// What a step takes, where it is said, for the scheduler, which has predicted it.
fn step_seconds(status: &TrainerStatus) -> Option<f64> {
    let said = status.metrics.iter().find(|metric| metric.name == "step_seconds")?;
    said.value.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0)
}

#[cfg(test)]
mod tests {
    use muster_trainer_api::train_job::Metric;

    use super::*;

    #[test]
    fn only_a_time_is_the_time_of_a_step() {
        let said = |name: &str, value: &str| TrainerStatus {
            metrics: vec![Metric { name: name.to_owned(), value: value.to_owned() }],
            ..TrainerStatus::default()
        };
        assert_eq!(step_seconds(&said("step_seconds", "0.250000")), Some(0.25));
        for (name, value) in
            [("loss", "0.5"), ("step_seconds", "-1"), ("step_seconds", "inf"), ("step_seconds", "x")]
        {
            assert_eq!(step_seconds(&said(name, value)), None, "{name} {value}");
        }
    }

    #[test]
    fn a_path_names_a_job() {
        let of = |namespace: &str, job: &str| Some((namespace.to_owned(), job.to_owned()));
        assert_eq!(job_of_path(&status_path("team", "train")), of("team", "train"));
        for wrong in ["/", "/apis", "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/train", ""]
        {
            assert_eq!(job_of_path(wrong), None, "{wrong}");
        }
        assert_eq!(job_of_path(&(status_path("team", "train") + "/more")), None);
    }
}
