//! Which training a caller of the rendezvous belongs to: the API server says which pod its token is of, and the pod
//! which job it is of.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use muster_rendezvous::{Admission, Caller, NotAdmitted};
use muster_trainer_core::RENDEZVOUS_AUDIENCE;

/// Admits pods by the tokens that elastic jobs give them, each to the training of its own job.
pub fn admission(client: Client) -> Admission {
    Arc::new(move |caller: Caller| {
        let client = client.clone();
        Box::pin(async move { training(&client, caller).await })
    })
}

async fn training(client: &Client, caller: Caller) -> Result<String, NotAdmitted> {
    let refused = |why: String| NotAdmitted::Refused(why);
    let unknown = |why: String| NotAdmitted::Unknown(why);
    let token = caller.token.ok_or_else(|| {
        refused("the call carries no token: MUSTER_RENDEZVOUS_TOKEN_FILE names the pod's".into())
    })?;
    let spec = TokenReviewSpec { token, audiences: Some(vec![RENDEZVOUS_AUDIENCE.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &review).await;
    let status = review.map_err(|error| unknown(format!("the token cannot be reviewed: {error}")))?.status;
    let status = status.unwrap_or_default();
    if status.authenticated != Some(true) {
        return Err(refused(format!("the token is not good: {}", status.error.unwrap_or_default())));
    }
    let user = status.user.unwrap_or_default();
    let (namespace, name, uid) = pod_of(&user).ok_or_else(|| {
        refused("the token is not that of a pod: mount a projected service account token".into())
    })?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get_opt(name).await;
    let pod = pod.map_err(|error| unknown(format!("pod {namespace}/{name}: {error}")))?;
    let pod = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
    let pod = pod.ok_or_else(|| refused(format!("there is no pod {namespace}/{name} any more")))?;
    let owners = pod.metadata.owner_references.unwrap_or_default();
    let job = owners.into_iter().find(|owner| owner.controller == Some(true));
    let job = job.ok_or_else(|| refused(format!("pod {namespace}/{name} belongs to no job")))?;
    Ok(format!("{namespace}/{}/{}/{}", job.kind, job.name, job.uid))
}

/// Namespace, name and uid of the pod that a token is bound to.
fn pod_of(user: &UserInfo) -> Option<(&str, &str, &str)> {
    let namespace = user.username.as_deref()?.strip_prefix("system:serviceaccount:")?.split(':').next()?;
    let extra = |key: &str| user.extra.as_ref()?.get(key)?.first().map(String::as_str);
    Some((
        namespace,
        extra("authentication.kubernetes.io/pod-name")?,
        extra("authentication.kubernetes.io/pod-uid")?,
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn user(name: &str, extra: &[(&str, &str)]) -> UserInfo {
        let extra: BTreeMap<String, Vec<String>> = extra
            .iter()
            .map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![(*value).to_owned()]))
            .collect();
        UserInfo { username: Some(name.to_owned()), extra: Some(extra), ..UserInfo::default() }
    }

    #[test]
    fn only_a_token_that_is_bound_to_a_pod_names_one() {
        let bound = user("system:serviceaccount:team:default", &[("pod-name", "w-0"), ("pod-uid", "u-1")]);
        assert_eq!(pod_of(&bound), Some(("team", "w-0", "u-1")));
        assert_eq!(pod_of(&user("system:serviceaccount:team:default", &[])), None);
        assert_eq!(pod_of(&user("alice", &[("pod-name", "w-0"), ("pod-uid", "u-1")])), None);
    }
}
