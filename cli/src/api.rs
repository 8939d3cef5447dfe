//! Requests that several commands make.

use futures::AsyncBufRead;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use kube::Client;
use muster_trainer_core::TrainingKind;
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

/// GET of an answer that comes in lines as things happen.
pub(crate) async fn stream(
    client: &Client,
    path: &str,
    as_table: bool,
) -> Result<impl AsyncBufRead + use<>, Error> {
    let accept = if as_table { TABLE } else { "application/json" };
    Ok(client.request_stream(request(Method::GET, path, &[(ACCEPT, accept)], Vec::new())?).await?)
}

/// Label and field selectors as parameters of a query.
pub(crate) fn selectors(labels: Option<&str>, fields: Option<&str>) -> Vec<String> {
    let parameter = |(name, selector): (&str, Option<&str>)| {
        let encoded = percent_encoding::utf8_percent_encode(selector?, percent_encoding::NON_ALPHANUMERIC);
        Some(format!("{name}={encoded}"))
    };
    [("labelSelector", labels), ("fieldSelector", fields)].into_iter().filter_map(parameter).collect()
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
        let completed = dry_run(connection, kinds, document).await?;
        check_job(document, completed)?;
    }
    Ok(())
}

/// The object as the server would have it, without creating it.
pub(crate) async fn dry_run(
    connection: &Connection,
    kinds: &Kinds,
    document: &Document,
) -> Result<Value, Error> {
    send(connection, kinds, document, "&dryRun=All").await
}

fn is_mpi_job(document: &Document) -> bool {
    document.kind() == "MPIJob"
        && matches!(document.api_version(), "kubeflow.org/v1" | "kubeflow.org/v2beta1")
}

/// What the controller of a job would reject: the kind's schema cannot say all of it.
fn check_job(document: &Document, completed: Value) -> Result<(), Error> {
    let checked = match TrainingKind::find(document.api_version(), document.kind()) {
        Some(training) => (training.read)(completed).err(),
        None if is_mpi_job(document) => muster_trainer_core::mpi::read(completed).err(),
        None => return Ok(()),
    };
    let errors = checked.unwrap_or_default();
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(document, errors.iter().map(|error| (error.field.as_str(), error.message.as_str()))))
}

/// Applies a document server-side with strict field validation.
pub(crate) async fn apply(
    connection: &Connection,
    kinds: &Kinds,
    document: &Document,
) -> Result<(Applied, Value), Error> {
    let before = match document.generate_name() {
        Some(_) => None,
        None => find(&connection.client, &path_of(connection, kinds, document)?).await?,
    };
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

/// The path of a document's object; of the collection when the server chooses the name.
fn path_of(connection: &Connection, kinds: &Kinds, document: &Document) -> Result<String, Error> {
    let kind =
        kinds.of(document.api_version(), document.kind()).ok_or_else(|| unknown_kind(kinds, document))?;
    let namespace = document.namespace().unwrap_or(&connection.namespace);
    let name = document.generate_name().is_none().then(|| document.name());
    Ok(kind.path(Some(namespace), name))
}

/// Sends an apply patch, or a create when the server chooses the name; `extra` are more query parameters.
async fn send(
    connection: &Connection,
    kinds: &Kinds,
    document: &Document,
    extra: &str,
) -> Result<Value, Error> {
    let path = path_of(connection, kinds, document)?;
    let query = format!("fieldManager={FIELD_MANAGER}&fieldValidation=Strict{extra}");
    let body = serde_json::to_vec(&document.object)?;
    let request = if document.generate_name().is_some() {
        request(Method::POST, &format!("{path}?{query}"), &[(CONTENT_TYPE, "application/json")], body)?
    } else {
        let headers = [(CONTENT_TYPE, "application/apply-patch+yaml")];
        request(Method::PATCH, &format!("{path}?{query}&force=true"), &headers, body)?
    };
    match connection.client.request(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(Error::rejected(document, &status)),
        Err(error) => Err(error.into()),
    }
}

/// A kind of a manifest that the cluster does not serve.
pub(crate) fn unknown_kind(kinds: &Kinds, document: &Document) -> Error {
    let (version, kind) = (document.api_version(), document.kind());
    let error =
        Error::new(format!("{}: the cluster has no kind {kind} in {version}", document.place_of("kind")));
    if let Some(known) = kinds.resembling(version, kind) {
        return error.with_hint(format!(
            "did you mean `kind: {}` with `apiVersion: {}`?",
            known.resource.kind, known.resource.api_version
        ));
    }
    match kinds.of_group(version).as_slice() {
        [] => error.with_hint(
            "`muster crds | kubectl apply --server-side -f -` adds Muster's kinds; others bring their own definitions",
        ),
        known => error.with_hint(format!("in {version} the cluster knows {}", known.join(", "))),
    }
}

/// Deletes an object and returns the server's answer, `None` when it was not there. `propagation` is Background,
/// Foreground or Orphan.
pub(crate) async fn delete(
    client: &Client,
    kind: &Kind,
    namespace: &str,
    name: &str,
    propagation: &str,
    grace_period_seconds: Option<u32>,
) -> Result<Option<Value>, Error> {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation});
    if let Some(seconds) = grace_period_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    let path = kind.path(Some(namespace), Some(name));
    let headers = [(CONTENT_TYPE, "application/json")];
    let request = request(Method::DELETE, &path, &headers, serde_json::to_vec(&options)?)?;
    match client.request::<Value>(request).await {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}
