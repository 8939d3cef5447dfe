//! Answers, and what browsers and caches are told of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;

pub(super) type Reply = Response<Full<Bytes>>;

pub(super) fn bytes(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // It is the caller's alone, and old at once.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("authorization"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// JSON with an entity tag; nothing but 304 when the asker has it already.
pub(super) fn json(asked: &HeaderMap, content: &impl Serialize) -> Result<Reply, Problem> {
    let body = serde_json::to_vec(content).map_err(|error| Problem::Broken(error.to_string()))?;
    let tag = tag(&body);
    let mut reply = if is_known(asked, &tag) {
        let mut reply = bytes(StatusCode::NOT_MODIFIED, "application/json", Vec::new());
        reply.headers_mut().remove(header::CONTENT_TYPE);
        reply
    } else {
        bytes(StatusCode::OK, "application/json", body)
    };
    let tag = HeaderValue::try_from(tag).map_err(|error| Problem::Broken(error.to_string()))?;
    reply.headers_mut().insert(header::ETAG, tag);
    Ok(reply)
}

fn tag(body: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(body).into();
    let (first, _) = digest.split_at(12);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(first))
}

fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|list| list.split(',')).map(str::trim).any(|one| {
        // Weak and strong tags are the same here: bytes that differ have different tags.
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_asker_has_is_not_sent_again() {
        let first = json(&HeaderMap::new(), &["a"]).unwrap();
        let tag = first.headers()["etag"].clone();
        let ask = |tags: &str| {
            let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::try_from(tags).unwrap())]);
            json(&asked, &["a"]).unwrap()
        };
        let tag = tag.to_str().unwrap();
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let reply = ask(&known);
            assert_eq!(
                (reply.status(), reply.headers()["etag"].to_str().unwrap()),
                (StatusCode::NOT_MODIFIED, tag)
            );
        }
        assert_eq!(ask("\"x\"").status(), StatusCode::OK);
        assert_ne!(json(&HeaderMap::new(), &["b"]).unwrap().headers()["etag"], tag);
    }
}
