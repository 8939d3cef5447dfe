//! Which training a caller of the rendezvous belongs to: the API server says which pod its token is of, and the pod
//! which job it is of.

use std::sync::Arc;

use kube::{Client, ResourceExt};
use muster_rendezvous::{Admission, Caller, NotAdmitted};
use muster_trainer_core::RENDEZVOUS_AUDIENCE;

use crate::caller::{Error, pod_of_token};

/// Admits pods by the tokens that elastic jobs give them, each to the training of its own job.
pub fn admission(client: Client) -> Admission {
    Arc::new(move |caller: Caller| {
        let client = client.clone();
        Box::pin(async move { training(&client, caller).await })
    })
}

async fn training(client: &Client, caller: Caller) -> Result<String, NotAdmitted> {
    let refused = |why: String| NotAdmitted::Refused(why);
    let token = caller.token.ok_or_else(|| {
        refused("the call carries no token: MUSTER_RENDEZVOUS_TOKEN_FILE names the pod's".into())
    })?;
    let pod =
        pod_of_token(client, token, RENDEZVOUS_AUDIENCE.to_owned()).await.map_err(|error| match error {
            Error::Refused(why) => NotAdmitted::Refused(why),
            Error::Unknown(why) => NotAdmitted::Unknown(why),
        })?;
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let owners = pod.metadata.owner_references.unwrap_or_default();
    let job = owners.into_iter().find(|owner| owner.controller == Some(true));
    let job = job.ok_or_else(|| refused(format!("pod {namespace}/{name} belongs to no job")))?;
    Ok(format!("{namespace}/{}/{}/{}", job.kind, job.name, job.uid))
}
