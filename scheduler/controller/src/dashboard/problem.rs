//! What is answered when something is wrong, as problem details (RFC 9457).

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::access::Right;
use super::reply::{self, Reply};

/// Media type of problem details.
const PROBLEM: &str = "application/problem+json";

/// Why a what-if cannot be answered: what was asked is wrong, or the API server refuses it to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status that the API server answered, if it was that one.
    pub answered: Option<u16>,
    /// What is wrong, with the line of the manifest.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("there is nothing at {0}; /openapi.json says what there is")]
    NoSuchPage(String),
    #[error("{path} does not understand {method}, only {allowed}")]
    Method { method: String, path: String, allowed: &'static str },
    #[error("{0}")]
    Parameter(String),
    #[error("no bearer token: send `Authorization: Bearer TOKEN` with one that the Kubernetes API takes")]
    NoToken,
    #[error("the Kubernetes API does not take the bearer token")]
    BadToken,
    #[error("the caller may not {0}")]
    Forbidden(Right),
    #[error("no gang or pod {namespace}/{name} is known to the scheduler")]
    NoSuchGang { namespace: String, name: String },
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {0} seconds")]
    TooSlow(u64),
    #[error("cannot read the body: {0}")]
    Body(String),
    #[error("{}", .0.message)]
    Refused(Refusal),
    #[error("{0} are under way already; try again")]
    Busy(&'static str),
    #[error("this replica does not lead{}", leads(.0.as_deref()))]
    NotLeading(Option<String>),
    #[error("the scheduler has not seen the whole cluster yet")]
    NotSynced,
    #[error("the answer took longer than {0} seconds")]
    Late(u64),
    #[error("cannot ask the Kubernetes API whether the caller may see this: {0}")]
    Unsure(String),
    #[error("cannot write the answer: {0}")]
    Broken(String),
}

fn leads(leader: Option<&str>) -> String {
    leader.map_or_else(|| "; who does is not known".to_owned(), |leader| format!("; {leader} does"))
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPage(_) | Self::NoSuchGang { .. } => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Parameter(_) | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Refused(refusal) => refused(refusal.answered),
            Self::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotLeading(_) | Self::NotSynced | Self::Unsure(_) | Self::Late(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Seconds after which the same request may go better.
    fn retry_after(&self) -> Option<u16> {
        match self {
            Self::Busy(_) | Self::NotSynced => Some(1),
            Self::NotLeading(_) | Self::Unsure(_) | Self::Late(_) => Some(2),
            _ => None,
        }
    }

    pub(super) fn reply(&self) -> Reply {
        let status = self.status();
        let mut details = Map::new();
        details.insert("type".to_owned(), json!("about:blank"));
        details.insert("title".to_owned(), json!(status.canonical_reason().unwrap_or_default()));
        details.insert("status".to_owned(), json!(status.as_u16()));
        details.insert("detail".to_owned(), json!(self.to_string()));
        match self {
            Self::Refused(Refusal { hint: Some(hint), .. }) => {
                details.insert("hint".to_owned(), json!(hint));
            }
            Self::NotLeading(Some(leader)) => {
                details.insert("leader".to_owned(), json!(leader));
            }
            _ => {}
        }
        let mut reply = reply::bytes(status, PROBLEM, Value::Object(details).to_string().into_bytes());
        let headers = reply.headers_mut();
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self {
            Self::Method { allowed, .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Self::NoToken => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::BadToken => {
                let value = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, value);
            }
            // What is still to come is not read.
            Self::TooLarge(_) | Self::TooSlow(_) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        reply
    }
}

/// What the API server answered to the caller's own requests is the answer here, too, when it is about the caller;
/// its own troubles are not the caller's fault.
fn refused(answered: Option<u16>) -> StatusCode {
    match answered.and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(code) if code.is_server_error() => StatusCode::SERVICE_UNAVAILABLE,
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => StatusCode::FORBIDDEN,
        None | Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn body(problem: &Problem) -> Value {
        let bytes = problem.reply().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_problem_has_its_details_and_headers() {
        let elsewhere = Problem::NotLeading(Some("b".to_owned()));
        assert_eq!(
            body(&elsewhere).await,
            json!({"type": "about:blank", "title": "Service Unavailable", "status": 503,
                "detail": "this replica does not lead; b does", "leader": "b"})
        );
        let reply = elsewhere.reply();
        assert_eq!(reply.headers()["retry-after"], "2");
        assert_eq!(reply.headers()["content-type"], PROBLEM);
        let method = Problem::Method { method: "PUT".into(), path: "/v1/nodes".into(), allowed: "GET, HEAD" };
        assert_eq!(
            (method.status().as_u16(), &method.reply().headers()["allow"]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
        assert_eq!(Problem::NoToken.reply().headers()["www-authenticate"], "Bearer");
    }

    #[tokio::test]
    async fn what_the_api_server_refuses_the_caller_is_refused_here() {
        let refusal = |answered| {
            Problem::Refused(Refusal {
                answered,
                message: "manifest:3: no".to_owned(),
                hint: Some("try".to_owned()),
            })
        };
        let codes =
            [None, Some(401), Some(403), Some(404), Some(503)].map(|code| refusal(code).status().as_u16());
        assert_eq!(codes, [422, 403, 403, 422, 503]);
        assert_eq!(body(&refusal(None)).await["hint"], "try");
    }
}
