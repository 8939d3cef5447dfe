//! Request bodies: JSON, YAML and protobuf to one generic object.

use bytes::Bytes;
use http::HeaderMap;
use muster_schema::catalogue::Catalogue;
use muster_schema::decode::{self, DecodeError, DuplicateField};
use muster_schema::protobuf;
use serde_json::Value;

use crate::app::Call;
use crate::status::{ApiError, ApiResult};

/// An object and the fields that occur twice in its text.
pub(crate) type Decoded = (Value, Vec<DuplicateField>);

const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The media type of the body, without parameters; JSON when absent.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let raw =
        headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = raw.split(';').next().unwrap_or_default().trim();
    if media.is_empty() { "application/json" } else { media }
}

/// Decodes an object that is not of the resource's own kind, such as a `Scale` or a `Binding`, and checks its types.
pub(crate) fn other(call: &Call, kind: &str, api_version: &str) -> ApiResult<Value> {
    let (value, _) = object(call, kind, api_version)?;
    check_types(&value, kind, api_version)?;
    Ok(value)
}

/// Checks an object of a built-in kind against the kind's types.
pub(crate) fn check_types(value: &Value, kind: &str, api_version: &str) -> ApiResult<()> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let catalogue = Catalogue::get();
    // Kinds of every group, such as options, stand in the catalogue under the core group.
    let schema = catalogue.by_kind(group, version, kind).or_else(|| catalogue.by_kind("", version, kind));
    let Some(schema) = schema.filter(|_| !value.is_null()) else { return Ok(()) };
    match decode::check(&schema, value).type_errors.first() {
        Some(first) => Err(ApiError::bad_request(decode::cannot_be_handled(kind, version, kind, first))),
        None => Ok(()),
    }
}

/// Decodes the object in a request; `kind` and `api_version` are what the path takes.
pub(crate) fn object(call: &Call, kind: &str, api_version: &str) -> ApiResult<Decoded> {
    match media_type(&call.headers) {
        "application/json" => {
            decode::decode_json(&call.body).map_err(|error| refusal(kind, &error, &call.body))
        }
        "application/yaml" => yaml(&call.body, kind),
        "application/vnd.kubernetes.protobuf" if call.resource.custom.is_none() => {
            let decoded = protobuf::decode(&call.body, Some((api_version, kind)));
            let decoded = decoded.map_err(|error| ApiError::bad_request(error.to_string()))?;
            Ok((decoded.value, Vec::new()))
        }
        _ if call.resource.custom.is_some() => {
            Err(ApiError::unsupported_media("application/json, application/yaml"))
        }
        _ => Err(ApiError::unsupported_media(OBJECT_TYPES)),
    }
}

/// Decodes a YAML document.
pub(crate) fn yaml(body: &Bytes, kind: &str) -> ApiResult<Decoded> {
    decode::decode_yaml(body).map_err(|error| refusal(kind, &error, body))
}

fn refusal(kind: &str, error: &DecodeError, body: &[u8]) -> ApiError {
    match error {
        DecodeError::TooLarge => ApiError::too_large(decode::MAX_BYTES),
        _ => ApiError::bad_request(decode::unrecognized(kind, error, body)),
    }
}
