//! Who a caller is that brings a pod's token: the API server says which pod that is.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};

/// Why a caller is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It has no business here.
    #[error("{0}")]
    Refused(String),
    /// That cannot be found out now.
    #[error("{0}")]
    Unknown(String),
}

/// The pod that a token for this audience belongs to, as long as it is there.
pub(crate) async fn pod_of_token(client: &Client, token: String, audience: String) -> Result<Pod, Error> {
    let refused = |why: String| Error::Refused(why);
    let unknown = |why: String| Error::Unknown(why);
    let spec = TokenReviewSpec { token, audiences: Some(vec![audience]) };
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
    pod.ok_or_else(|| refused(format!("there is no pod {namespace}/{name} any more")))
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
