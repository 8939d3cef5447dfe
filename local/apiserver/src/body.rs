//! Request bodies: JSON, YAML and protobuf to one generic object.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::status::{ApiError, ApiResult};

/// The media type of the body, without parameters; JSON when absent.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let raw = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = raw.split(';').next().unwrap_or_default().trim();
    if media.is_empty() { "application/json" } else { media }
}

const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Decodes an object; `kind` is the kind that the path takes.
pub(crate) fn object(headers: &HeaderMap, body: &Bytes, kind: &str) -> ApiResult<Value> {
    match media_type(headers) {
        "application/json" => json(body, kind),
        "application/yaml" => yaml(body, kind),
        _ => Err(ApiError::unsupported_media(OBJECT_TYPES)),
    }
}

fn json(body: &Bytes, kind: &str) -> ApiResult<Value> {
    serde_json::from_slice(body).map_err(|_| {
        let shown = String::from_utf8_lossy(body);
        let shown = if shown.is_empty() { "<empty>".into() } else { shown };
        let why = json_problem(body);
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: {why} ({shown})"
        ))
    })
}

/// A YAML document as JSON.
pub(crate) fn yaml(body: &Bytes, kind: &str) -> ApiResult<Value> {
    let unreadable = |why: String| {
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why}"))
    };
    let text = std::str::from_utf8(body).map_err(|why| unreadable(why.to_string()))?;
    serde_saphyr::from_str(text).map_err(|why| unreadable(why.to_string()))
}

/// What Go's decoder says about the most common kinds of broken JSON.
fn json_problem(body: &[u8]) -> String {
    let Err(error) = serde_json::from_slice::<Value>(body) else { return String::new() };
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let line_start = body.split_inclusive(|byte| *byte == b'\n').take(error.line() - 1).map(<[u8]>::len).sum::<usize>();
    let place = (line_start + error.column()).saturating_sub(1).min(body.len().saturating_sub(1));
    let found = char::from(body.get(place).copied().unwrap_or(b'?'));
    let text = error.to_string();
    let wanted = if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("trailing characters") {
        "after top-level value"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character '{found}' {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_is_told_in_the_words_of_kubernetes() {
        let message = |body: &'static str| json(&Bytes::from_static(body.as_bytes()), "ConfigMap").unwrap_err().message;
        assert!(message("{bad json").ends_with(
            "json parse error: invalid character 'b' looking for beginning of object key string ({bad json)"
        ));
        assert!(message("").ends_with("json parse error: unexpected end of JSON input (<empty>)"));
    }
}
