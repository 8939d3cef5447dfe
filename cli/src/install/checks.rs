//! Whether a cluster can take an installation, and whether what was installed works.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::wait::{Condition, await_condition, conditions};
use muster_scheduler_extender::client::{self, CallError};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::time::{Instant, interval, timeout_at};

use super::certificates::Pair;
use super::{EXTENDER, certificates};
use crate::connect::Connection;
use crate::error::Error;
use crate::kinds::Kinds;
use crate::manifest::Document;

/// The first version with everything that the manifests use.
const OLDEST: (u32, u32) = (1, 30);
/// Pause between two questions whether the extender answers.
const EVERY: Duration = Duration::from_millis(500);

/// The server's version.
///
/// # Errors
/// When it is too old.
pub(crate) async fn version(client: &Client) -> Result<String, Error> {
    let version = client.apiserver_version().await?;
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().unwrap_or(0);
    if (number(&version.major), number(&version.minor)) < OLDEST {
        let (major, minor) = OLDEST;
        return Err(Error::new(format!("the server has Kubernetes {}", version.git_version))
            .with_hint(format!("Muster needs {major}.{minor} or newer")));
    }
    Ok(version.git_version)
}

/// What of these documents the caller may not do, as `VERB RESOURCE`; and how much was asked.
pub(crate) async fn forbidden(
    connection: &Connection,
    kinds: &Kinds,
    documents: &[Document],
    verbs: &[&str],
) -> Result<(Vec<String>, usize), Error> {
    let mut wanted = BTreeSet::new();
    for document in documents {
        let kind = kinds
            .of(document.api_version(), document.kind())
            .ok_or_else(|| crate::api::unknown_kind(kinds, document))?;
        let namespace = kind.namespaced.then(|| connection.namespace.clone());
        wanted.extend(verbs.iter().map(|verb| {
            (kind.resource.group.clone(), kind.resource.plural.clone(), namespace.clone(), (*verb).to_owned())
        }));
    }
    let api: Api<SelfSubjectAccessReview> = Api::all(connection.client.clone());
    let asked = wanted.len();
    let mut forbidden = Vec::new();
    for (group, resource, namespace, verb) in wanted {
        let told = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
        let told = format!("{verb} {told}");
        let attributes = ResourceAttributes {
            group: Some(group),
            resource: Some(resource),
            namespace,
            verb: Some(verb),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = api.create(&PostParams::default(), &review).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            forbidden.push(told);
        }
    }
    Ok((forbidden, asked))
}

/// Waits until the server serves a definition's kind.
pub(crate) async fn established(client: &Client, name: &str, deadline: Instant) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    wait(api, name, conditions::is_crd_established(), deadline)
        .await
        .map_err(|why| Error::new(format!("the definition {name} is not established: {why}")))
}

/// Waits until all replicas of a Deployment work.
pub(crate) async fn available(connection: &Connection, name: &str, deadline: Instant) -> Result<(), Error> {
    let api: Api<Deployment> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let Err(why) = wait(api, name, rolled_out, deadline).await else { return Ok(()) };
    let error = Error::new(format!("the Deployment {name} is not available: {why}"));
    Err(match ailment(connection, name).await {
        Some(ailment) => error.with_hint(ailment),
        None => error,
    })
}

fn rolled_out(deployment: Option<&Deployment>) -> bool {
    let Some((deployment, status)) = deployment.and_then(|one| Some((one, one.status.as_ref()?))) else {
        return false;
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) >= wanted
        && status.available_replicas.unwrap_or(0) >= wanted
        && status.replicas.unwrap_or(0) == wanted
}

/// Waits until a replica renews a Lease: whoever cannot work with the cluster does not.
pub(crate) async fn leads(
    connection: &Connection,
    lease: &str,
    deployment: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let api: Api<Lease> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let mut every = interval(EVERY);
    let mut first = None;
    while Instant::now() < deadline {
        every.tick().await;
        let Some(spec) = api.get_opt(lease).await?.and_then(|lease| lease.spec) else { continue };
        let renewal = (spec.holder_identity.filter(|holder| !holder.is_empty()), spec.renew_time);
        // One that was left behind is not renewed.
        if renewal.0.is_some() && first.get_or_insert_with(|| renewal.clone()) != &renewal {
            return Ok(());
        }
    }
    let error = Error::new(format!("no replica of {deployment} leads as {lease}"));
    Err(match ailment(connection, deployment).await {
        Some(ailment) => error.with_hint(ailment),
        None => error,
    })
}

/// What is wrong with a pod of a Deployment.
async fn ailment(connection: &Connection, deployment: &str) -> Option<String> {
    let api: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let component = deployment.strip_prefix("muster-")?;
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    let pods = api.list(&ours).await.ok()?;
    pods.into_iter().find_map(|pod| {
        let (name, status) = (pod.metadata.name?, pod.status?);
        let waits = status.container_statuses.iter().flatten().find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            Some(format!(
                "{}: {}",
                waiting.reason.as_deref()?,
                waiting.message.as_deref().unwrap_or_default()
            ))
        });
        let unplaced = || {
            let conditions = status.conditions.iter().flatten();
            conditions.filter(|one| one.status == "False").find_map(|one| one.message.clone())
        };
        Some(format!("pod {name}: {}", waits.or_else(unplaced)?))
    })
}

async fn wait<K>(
    api: Api<K>,
    name: &str,
    condition: impl Condition<K>,
    deadline: Instant,
) -> Result<(), String>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    match timeout_at(deadline, await_condition(api, name, condition)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it takes too long".to_owned()),
    }
}

/// How far the extender could be reached.
pub(crate) enum Reached {
    /// It answered that it knows the cluster.
    Answers(SocketAddr),
    /// It says that it answers there, where this machine cannot reach it.
    Elsewhere(SocketAddr, String),
}

/// Waits until a replica of the extender leads, then asks it as kube-scheduler would.
pub(crate) async fn extender(
    connection: &Connection,
    caller: &Pair,
    authority: &str,
    deadline: Instant,
) -> Result<Reached, Error> {
    let config = trusted(caller, authority)?;
    let api: Api<EndpointSlice> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let mut every = interval(EVERY);
    let mut last = "no replica leads".to_owned();
    while Instant::now() < deadline {
        every.tick().await;
        let Some(address) = api.get_opt(EXTENDER).await?.as_ref().and_then(leader) else { continue };
        match ask(address, &connection.namespace, config.clone()).await {
            Ok(()) => return Ok(Reached::Answers(address)),
            Err(CallError::Status { body, .. }) => last = body,
            Err(error) => return Ok(Reached::Elsewhere(address, error.to_string())),
        }
    }
    Err(Error::new(format!("the extender does not answer: {last}")))
}

fn leader(slice: &EndpointSlice) -> Option<SocketAddr> {
    let address = slice.endpoints.as_ref()?.first()?.addresses.first()?.parse().ok()?;
    let port = slice.ports.as_ref()?.first()?.port?;
    Some(SocketAddr::new(address, u16::try_from(port).ok()?))
}

async fn ask(
    address: SocketAddr,
    namespace: &str,
    config: Arc<rustls::ClientConfig>,
) -> Result<(), CallError> {
    let name = ServerName::try_from(format!("{EXTENDER}.{namespace}.svc"));
    let name = name.map_err(|error| CallError::Connection { address, reason: error.to_string() })?;
    let mut client = client::Client::connect_tls(address, name, config).await?;
    match client.request(Method::GET, "/readyz", bytes::Bytes::new()).await? {
        (status, _) if status.is_success() => Ok(()),
        (status, body) => {
            Err(CallError::Status { status, body: String::from_utf8_lossy(&body).into_owned() })
        }
    }
}

/// What kube-scheduler proves itself with, and whom it trusts.
fn trusted(caller: &Pair, authority: &str) -> Result<Arc<rustls::ClientConfig>, Error> {
    let broken = |error: &dyn std::error::Error| {
        Error::from_source("the Secrets of the extender's certificates are broken", error)
            .with_hint(format!("delete {} and install again", certificates::secret_names().join(", ")))
    };
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pem(authority).map_err(|error| broken(&error))?).map_err(|error| broken(&error))?;
    let chain = vec![pem(&caller.certificate).map_err(|error| broken(&error))?];
    let key = PrivateKeyDer::from_pem_slice(caller.key.as_bytes()).map_err(|error| broken(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map(Arc::new)
        .map_err(|error| broken(&error))
}
