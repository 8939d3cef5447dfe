//! Requests that several commands make.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use crate::connect::Connection;
use crate::error::Error;
use crate::kinds::{Kind, Kinds};
use crate::manifest::Document;

/// The field manager of what the CLI applies.
const FIELD_MANAGER: &str = "muster";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A request with this method, path, headers and body.
fn request(
    method: Method,
    path: &str,
    headers: &[(http::HeaderName, &str)],
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, Error> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(name, *value);
    }
    builder.body(body).map_err(|error| Error::from_source("cannot build the request", &error))
}

/// GET.
pub(crate) async fn get(client: &Client, path: &str) -> Result<Value, Error> {
    Ok(client.request(request(Method::GET, path, &[], Vec::new())?).await?)
}

/// GET; `None` when there is no such object.
pub(crate) async fn find(client: &Client, path: &str) -> Result<Option<Value>, Error> {
    match client.request(request(Method::GET, path, &[], Vec::new())?).await {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// GET as the server's table.
pub(crate) async fn table(client: &Client, path: &str) -> Result<Value, Error> {
    Ok(client.request(request(Method::GET, path, &[(ACCEPT, TABLE)], Vec::new())?).await?)
}

/// What applying a document did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was not there before.
    Created,
    /// It changed.
    Configured,
    /// It was already so.
    Unchanged,
}

impl Applied {
    /// The word for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Asks the server about every document without changing anything, so that one mistake leaves nothing behind.
///
/// Documents that need an earlier one of the same manifest (its namespace, its definition) cannot be asked about.
pub(crate) async fn validate(
    connection: &Connection,
    kinds: &Kinds,
    documents: &[Document],
) -> Result<(), Error> {
    if documents.iter().any(|document| matches!(document.kind(), "Namespace" | "CustomResourceDefinition")) {
        return Ok(());
    }
    for document in documents {
        send(connection, kinds, document, "&dryRun=All").await?;
    }
    Ok(())
}

/// Applies a document server-side with strict field validation.
pub(crate) async fn apply(
    connection: &Connection,
    kinds: &Kinds,
    document: &Document,
) -> Result<(Applied, Value), Error> {
    let before = find(&connection.client, &path_of(connection, kinds, document)?).await?;
    let after = send(connection, kinds, document, "").await?;
    let applied = match before {
        None => Applied::Created,
        Some(before) if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] => {
            Applied::Unchanged
        }
        Some(_) => Applied::Configured,
    };
    Ok((applied, after))
}

fn path_of(connection: &Connection, kinds: &Kinds, document: &Document) -> Result<String, Error> {
    let kind = kinds.of(document.api_version(), document.kind()).ok_or_else(|| unknown_kind(document))?;
    let namespace = document.namespace().unwrap_or(&connection.namespace);
    Ok(kind.path(Some(namespace), Some(document.name())))
}

/// Sends an apply patch; `extra` are more query parameters.
async fn send(
    connection: &Connection,
    kinds: &Kinds,
    document: &Document,
    extra: &str,
) -> Result<Value, Error> {
    let path = path_of(connection, kinds, document)?;
    let uri = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict&force=true{extra}");
    let headers = [(CONTENT_TYPE, "application/apply-patch+yaml")];
    let request = request(Method::PATCH, &uri, &headers, serde_json::to_vec(&document.object)?)?;
    match connection.client.request(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(Error::rejected(document, &status)),
        Err(error) => Err(error.into()),
    }
}

fn unknown_kind(document: &Document) -> Error {
    Error::new(format!(
        "{}:{}: the cluster has no kind {} in {}",
        document.path.display(),
        document.line_of("kind"),
        document.kind(),
        document.api_version()
    ))
    .with_hint("`muster crds | kubectl apply -f -` installs Muster's kinds; others bring their own")
}

/// Deletes an object; whether it was there. `propagation` is Background, Foreground or Orphan.
pub(crate) async fn delete(
    client: &Client,
    kind: &Kind,
    namespace: &str,
    name: &str,
    propagation: &str,
    grace_period_seconds: Option<u32>,
) -> Result<bool, Error> {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation});
    if let Some(seconds) = grace_period_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    let path = kind.path(Some(namespace), Some(name));
    let headers = [(CONTENT_TYPE, "application/json")];
    let request = request(Method::DELETE, &path, &headers, serde_json::to_vec(&options)?)?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}
