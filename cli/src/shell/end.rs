//! The end of an interactive job that its shell has not ended.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use muster_batch_core::names;
use tokio::time::timeout;

use super::notes::Notes;
use crate::batch;
use crate::commands::control::{self, Control};
use crate::connect::Connection;

/// How long a person waits at most to be told whether a job was cancelled.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cancels the job, unless it is over.
pub(crate) async fn give_up(connection: &Connection, id: u64, notes: &Notes) {
    let is_over = async || match batch::look_up(connection, id).await {
        Ok(Some(work)) => work.is_over(),
        Ok(None) => true,
        Err(_) => false,
    };
    let cancel = async {
        if is_over().await {
            return;
        }
        match control::apply(connection, id, Control::Cancel).await {
            Ok(()) => notes.tell(&format!("job {id} is cancelled")),
            Err(_) if is_over().await => {}
            Err(error) => notes.tell(&format!("job {id} is not cancelled: {}", error.message())),
        }
    };
    if timeout(PATIENCE, cancel).await.is_err() {
        notes.tell(&format!(
            "the server does not answer; job {id} ends by itself when it has not heard of this command for a while"
        ));
    }
}

/// Who ended the job, if its shell did not; `out_of_time` says that its time was over.
pub(crate) async fn why(connection: &Connection, id: u64, out_of_time: bool) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let own = ListParams::default().labels(&format!("{}={id}", names::ID));
    let (work, pods) = tokio::join!(batch::look_up(connection, id), pods.list(&own));
    let (work, pods) = (work.ok().flatten(), pods.map(|list| list.items).unwrap_or_default());
    if work.is_some_and(|work| work.annotation(names::CANCELLED).is_some()) {
        return Some(format!("job {id} was cancelled"));
    }
    let reason = |pod: &Pod| pod.status.as_ref()?.reason.clone();
    if out_of_time || pods.iter().any(|pod| reason(pod).as_deref() == Some("DeadlineExceeded")) {
        return Some(format!("the time of job {id} is over"));
    }
    let disrupted = pods.iter().find_map(|pod| {
        let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
        conditions.find(|one| one.type_ == "DisruptionTarget" && one.status == "True")
    })?;
    let message = disrupted.message.as_deref().or(disrupted.reason.as_deref()).unwrap_or("it was displaced");
    Some(format!("job {id} has lost its place: {message}"))
}
