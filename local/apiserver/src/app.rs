//! The request path: who asks, what is asked, may they, and the handler that answers.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, request};
use tokio_util::sync::CancellationToken;

use crate::auth::{self, User};
use crate::negotiate::{self, Accepted};
use crate::registry::{Registry, Resource};
use crate::request::{Query, ResourcePath, Route, parse_path};
use crate::respond::{self, Reply};
use crate::status::{ApiError, ApiResult};
use crate::tls::Credentials;
use crate::{change, discovery, read, subresource};

/// Everything a request may need.
#[derive(Debug)]
pub(crate) struct App {
    /// The objects.
    pub store: muster_store::Handle,
    /// The resources.
    pub registry: Registry,
    /// Keys and tokens.
    pub credentials: Credentials,
    /// `host:port` that clients reach the server under.
    pub address: std::sync::OnceLock<std::net::SocketAddr>,
    /// Held while the registry follows the definitions.
    pub definitions: tokio::sync::Mutex<crate::definitions::Definitions>,
    /// Definitions whose objects are being deleted.
    pub ending: parking_lot::Mutex<std::collections::BTreeSet<String>>,
    /// Held while quotas are charged.
    pub quotas: tokio::sync::Mutex<()>,
    /// Answered requests.
    pub requests: crate::telemetry::Requests,
    /// Lines that watchers share.
    pub lines: crate::lines::Lines,
    /// OpenAPI documents.
    pub documents: crate::openapi::Cache,
    /// The node's unix socket.
    pub node_socket: Option<std::path::PathBuf>,
    /// Ends every watch.
    pub shutdown: CancellationToken,
}

/// One request for objects, on its way through the handlers.
#[derive(Debug)]
pub(crate) struct Call {
    /// The server.
    pub app: Arc<App>,
    /// Who asks.
    pub user: User,
    /// The resource asked for.
    pub resource: Arc<Resource>,
    /// The HTTP method.
    pub method: Method,
    /// Where.
    pub path: ResourcePath,
    /// Query parameters.
    pub query: Query,
    /// Request headers.
    pub headers: HeaderMap,
    /// Request body.
    pub body: Bytes,
    /// The connection, for requests that become streams.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// What the client takes.
    pub accepted: Accepted,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl Call {
    /// Namespace of the path, empty for none.
    pub(crate) fn namespace(&self) -> &str {
        if self.resource.namespaced { self.path.namespace.as_deref().unwrap_or_default() } else { "" }
    }

    /// Field manager of a client that names none: its program's name.
    pub(crate) fn default_manager(&self) -> String {
        let agent = self.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        let name = agent.unwrap_or_default().split('/').next().unwrap_or_default();
        if name.is_empty() { "unknown".to_owned() } else { name.chars().take(128).collect() }
    }
}

impl App {
    /// Answers a request. `user` is set for callers inside the process; others prove who they are.
    pub(crate) async fn handle(
        self: &Arc<Self>,
        parts: request::Parts,
        body: Bytes,
        user: Option<User>,
    ) -> Reply {
        match self.dispatch(parts, body, user).await {
            Ok(reply) => reply,
            Err(refusal) => respond::error(&refusal),
        }
    }

    async fn dispatch(
        self: &Arc<Self>,
        mut parts: request::Parts,
        body: Bytes,
        user: Option<User>,
    ) -> ApiResult<Reply> {
        let user = match user {
            Some(user) => user,
            None => auth::authenticate(self, &parts.headers)?,
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let route = parse_path(parts.uri.path());
        let Route::Resource(path) = route else {
            return discovery::answer(self, &parts, &route, &query, &user);
        };
        let snapshot = self.registry.snapshot();
        let Some(resource) = snapshot.find(&path.group, &path.version, &path.resource) else {
            authorize_unknown(&user)?;
            return Ok(respond::page_not_found());
        };
        let verb = verb(&parts.method, &path, &query);
        let accepted = negotiate::accepted(&parts.headers)?;
        let headers = parts.headers;
        let upgrade = parts.extensions.remove();
        let mut call = Call {
            app: self.clone(),
            user,
            resource,
            method: parts.method.clone(),
            path,
            query,
            headers,
            body,
            upgrade,
            accepted,
            warnings: Vec::new(),
        };
        crate::rbac::authorize(&call, verb)?;
        let result = route_call(&mut call, &parts.method, verb).await;
        let code = result.as_ref().map_or_else(|refusal| refusal.code, |reply| reply.status().as_u16());
        self.requests.count(verb, &call.resource.plural, code);
        let mut reply = result?;
        for warning in &call.warnings {
            let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
                reply.headers_mut().append(http::header::WARNING, value);
            }
        }
        Ok(reply)
    }
}

/// Strangers do not learn which paths exist.
fn authorize_unknown(user: &User) -> ApiResult<()> {
    let known = user.groups.iter().any(|group| group == "system:authenticated");
    if known { Ok(()) } else { Err(ApiError::unauthorized()) }
}

/// The Kubernetes verb of a request.
fn verb(method: &Method, path: &ResourcePath, query: &Query) -> &'static str {
    let watching = path.watch_prefix || query.flag("watch");
    match (method.as_str(), path.name.is_some()) {
        ("GET" | "HEAD", _) if watching && path.subresource.is_none() => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "unknown",
    }
}

async fn route_call(call: &mut Call, method: &Method, verb: &'static str) -> ApiResult<Reply> {
    if call.resource.namespaced && call.path.namespace.is_none() && !matches!(verb, "list" | "watch") {
        return Err(ApiError::method_not_allowed());
    }
    if !call.resource.namespaced && call.path.namespace.is_some() && call.path.resource != "namespaces" {
        return Err(ApiError::no_such_resource());
    }
    if call.path.subresource.is_some() {
        return subresource::answer(call, method, verb).await;
    }
    if !call.resource.has_verb(verb) {
        return Err(ApiError::method_not_allowed());
    }
    if call.resource.group == "metrics.k8s.io" && call.resource.custom.is_none() {
        return crate::usage::answer(call).await;
    }
    match (verb, call.path.name.is_some()) {
        ("get", _) => read::get(call),
        ("list", _) => read::list(call),
        // A plain GET of one object does not watch, whatever the query says.
        ("watch", true) if !call.path.watch_prefix => read::get(call),
        ("watch", _) => crate::watch::answer(call).await,
        ("create", false) => change::create(call).await,
        ("update", true) => change::update(call).await,
        ("patch", true) => change::patch(call).await,
        ("delete", _) => change::delete(call).await,
        ("deletecollection", _) => change::delete_collection(call).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}
