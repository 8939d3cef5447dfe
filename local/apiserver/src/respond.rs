//! From objects to bytes in the representation the client accepts.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use muster_store::Entry;
use serde_json::Value;

use crate::negotiate::Encoding;
use crate::registry::Resource;
use crate::rules;
use crate::status::ApiError;

/// Why a streamed answer broke off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// Body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;
/// Every answer.
pub(crate) type Reply = Response<Body>;

/// A body that is there as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes piece by piece.
pub(crate) fn streamed(pieces: BoxStream<'static, Result<Bytes, BodyError>>) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(pieces.map_ok(Frame::data).boxed()))
}

/// An answer of bytes.
pub(crate) fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(body));
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer of plain text.
pub(crate) fn text(code: u16, body: impl Into<Bytes>) -> Reply {
    bytes(code, "text/plain; charset=utf-8", body)
}

/// What Kubernetes says about a path that it does not serve.
pub(crate) fn page_not_found() -> Reply {
    text(404, "404 page not found\n")
}

/// A JSON value in the client's encoding.
pub(crate) fn value(code: u16, encoding: Encoding, value: &Value) -> Reply {
    encoded(code, encoding, value.to_string().into())
}

/// JSON bytes in the client's encoding.
pub(crate) fn encoded(code: u16, encoding: Encoding, json: Bytes) -> Reply {
    match encoding {
        Encoding::Json => bytes(code, encoding.content_type(), json),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).unwrap_or_default();
            match serde_saphyr::to_string(&value) {
                Ok(text) => bytes(code, encoding.content_type(), text),
                Err(why) => error(&ApiError::internal_error(why)),
            }
        }
    }
}

/// A refusal.
pub(crate) fn error(refusal: &ApiError) -> Reply {
    let mut reply = bytes(refusal.code, "application/json", refusal.to_value().to_string());
    if let Some(seconds) = refusal.retry_after {
        reply.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    reply
}

/// `"kind":"Pod","apiVersion":"v1"`: the head of an object's JSON, which is not stored with it.
pub(crate) fn type_meta(resource: &Resource) -> String {
    format!("\"kind\":\"{}\",\"apiVersion\":\"{}\"", resource.kind, resource.api_version())
}

/// The stored object as the resource's version shows it, without `kind` and `apiVersion`.
pub(crate) fn view(resource: &Resource, entry: &Entry) -> Bytes {
    if rules::is_view(resource) {
        let mut object = (*entry.object()).clone();
        rules::to_view(resource, &mut object);
        return object.to_string().into();
    }
    entry.json()
}

/// Appends an object's JSON with its type in front.
pub(crate) fn push_typed(out: &mut Vec<u8>, type_meta: &str, object: &[u8]) {
    out.push(b'{');
    out.extend_from_slice(type_meta.as_bytes());
    if object.len() > 2 {
        out.push(b',');
    }
    out.extend_from_slice(object.get(1..).unwrap_or(b"}"));
}

/// One object with its type in front.
pub(crate) fn typed(resource: &Resource, entry: &Entry) -> Bytes {
    let object = view(resource, entry);
    let head = type_meta(resource);
    let mut out = Vec::with_capacity(object.len() + head.len() + 2);
    push_typed(&mut out, &head, &object);
    out.into()
}

/// A list of stored objects; items of custom resources carry their type, built-in ones do not.
pub(crate) fn list(resource: &Resource, metadata: &Value, entries: &[Arc<Entry>]) -> Bytes {
    let size: usize = entries.iter().map(|entry| entry.size() + 64).sum();
    let mut out = Vec::with_capacity(size + 256);
    let api_version = resource.api_version();
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[",
        resource.list_kind
    );
    out.extend_from_slice(head.as_bytes());
    let type_meta = resource.custom.is_some().then(|| type_meta(resource));
    for (place, entry) in entries.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let object = view(resource, entry);
        match &type_meta {
            Some(type_meta) => push_typed(&mut out, type_meta, &object),
            None => out.extend_from_slice(&object),
        }
    }
    out.extend_from_slice(b"]}");
    out.into()
}
