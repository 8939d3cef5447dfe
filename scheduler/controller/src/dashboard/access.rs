//! Who may see what: whoever may list the pods, nodes or queues with kubectl may read of them here. The caller's own
//! token is shown to the Kubernetes API, which decides; its answers count for a moment.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, header};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::client::Body;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};

use super::problem::Problem;

/// Longest wait for the API server's decision.
const PATIENCE: Duration = Duration::from_secs(5);
/// Decisions that are kept at a time.
const KEPT: usize = 4096;
/// Longest token that is looked at.
const LONGEST_TOKEN: usize = 16 << 10;

/// What a caller must be allowed to do with the Kubernetes API to be shown the same here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Right {
    /// List the pods of a namespace; of all of them without one.
    Pods(Option<String>),
    /// List the nodes.
    Nodes,
    /// List the queues.
    Queues,
    /// Read what an API is like, as everybody who is somebody may.
    Descriptions,
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(Some(namespace)) => write!(formatter, "list pods in namespace {namespace}"),
            Self::Pods(None) => formatter.write_str("list pods in all namespaces"),
            Self::Nodes => formatter.write_str("list nodes"),
            Self::Queues => formatter.write_str("list queues.muster.dev"),
            Self::Descriptions => formatter.write_str("read /openapi/v3"),
        }
    }
}

impl Right {
    fn review(&self) -> SelfSubjectAccessReview {
        let list = |group: &str, resource: &str, namespace: Option<&String>| ResourceAttributes {
            verb: Some("list".to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            namespace: namespace.cloned(),
            ..ResourceAttributes::default()
        };
        let resource_attributes = match self {
            Self::Pods(namespace) => Some(list("", "pods", namespace.as_ref())),
            Self::Nodes => Some(list("", "nodes", None)),
            Self::Queues => Some(list("muster.dev", "queues", None)),
            Self::Descriptions => None,
        };
        let non_resource_attributes = resource_attributes.is_none().then(|| NonResourceAttributes {
            path: Some("/openapi/v3".to_owned()),
            verb: Some("get".to_owned()),
        });
        SelfSubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SelfSubjectAccessReviewSpec { resource_attributes, non_resource_attributes },
            status: None,
        }
    }
}

/// The bearer token of a request. Only its digest is kept beyond the request.
#[derive(Clone)]
pub(super) struct Token {
    header: HeaderValue,
    digest: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

impl Token {
    /// The token in the headers of a request.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(header::AUTHORIZATION).ok_or(Problem::NoToken)?;
        let text = value.to_str().map_err(|_| Problem::BadToken)?;
        let (scheme, token) = text.split_once(' ').ok_or(Problem::NoToken)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(Problem::NoToken);
        }
        if token.len() > LONGEST_TOKEN {
            return Err(Problem::BadToken);
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Problem::BadToken)?;
        header.set_sensitive(true);
        Ok(Self { header, digest: Sha256::digest(token.as_bytes()).into() })
    }

    /// A client that speaks for the caller, and for nobody else: `anonymous` itself has no credentials.
    pub(super) fn client(&self, anonymous: &Client) -> Client {
        let (inner, header) = (anonymous.clone(), self.header.clone());
        let service = tower::service_fn(move |mut request: Request<Body>| {
            request.headers_mut().insert(header::AUTHORIZATION, header.clone());
            let inner = inner.clone();
            async move { inner.send(request).await }
        });
        Client::new(service, anonymous.default_namespace())
    }
}

/// What the API server decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Allowed,
    Forbidden,
    /// It does not know the token.
    Unknown,
}

/// Decisions of the last moments.
#[derive(Debug, Default)]
struct Decisions {
    until: HashMap<([u8; 32], Right), (Decision, Instant)>,
}

impl Decisions {
    fn find(&self, token: &Token, right: &Right, now: Instant) -> Option<Decision> {
        let (decision, until) = self.until.get(&(token.digest, right.clone()))?;
        (*until > now).then_some(*decision)
    }

    fn keep(&mut self, token: &Token, right: Right, decision: Decision, now: Instant, lasts: Duration) {
        if self.until.len() >= KEPT {
            self.until.retain(|_, (_, until)| *until > now);
        }
        if self.until.len() >= KEPT {
            // Somebody tries tokens, or there are very many callers: all are asked about again.
            self.until.clear();
        }
        self.until.insert((token.digest, right), (decision, now + lasts));
    }
}

/// Asks the API server who may see what.
pub(super) struct Gate {
    anonymous: Client,
    /// How long a decision counts.
    lasts: Duration,
    decisions: Mutex<Decisions>,
}

impl Gate {
    pub(super) fn new(anonymous: Client, lasts: Duration) -> Self {
        Self { anonymous, lasts, decisions: Mutex::default() }
    }

    /// A client that speaks for the caller.
    pub(super) fn client(&self, token: &Token) -> Client {
        token.client(&self.anonymous)
    }

    /// Whether the caller has the right; an error when it does not.
    pub(super) async fn check(&self, token: &Token, right: Right) -> Result<(), Problem> {
        match self.decision(token, &right).await? {
            Decision::Allowed => Ok(()),
            Decision::Forbidden => Err(Problem::Forbidden(right)),
            Decision::Unknown => Err(Problem::BadToken),
        }
    }

    /// Whether the caller has the right.
    pub(super) async fn has(&self, token: &Token, right: Right) -> Result<bool, Problem> {
        Ok(self.decision(token, &right).await? == Decision::Allowed)
    }

    /// Whether the caller is somebody whom the API server knows; an error when not.
    pub(super) async fn recognise(&self, token: &Token) -> Result<(), Problem> {
        match self.decision(token, &Right::Descriptions).await? {
            Decision::Allowed | Decision::Forbidden => Ok(()),
            Decision::Unknown => Err(Problem::BadToken),
        }
    }

    async fn decision(&self, token: &Token, right: &Right) -> Result<Decision, Problem> {
        if let Some(known) = self.decisions.lock().find(token, right, Instant::now()) {
            return Ok(known);
        }
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client(token));
        let (parameters, review) = (PostParams::default(), right.review());
        let decision = match timeout(PATIENCE, reviews.create(&parameters, &review)).await {
            Ok(Ok(review)) => match review.status {
                Some(status) if status.allowed => Decision::Allowed,
                _ => Decision::Forbidden,
            },
            Ok(Err(kube::Error::Api(status))) if status.code == 401 => Decision::Unknown,
            // Who may not even ask what it may do, may nothing.
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Decision::Forbidden,
            Ok(Err(error)) => return Err(Problem::Unsure(muster_machinery::hint::chain(&error))),
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                return Err(Problem::Unsure(format!("no answer within {seconds} seconds")));
            }
        };
        self.decisions.lock().keep(token, right.clone(), decision, Instant::now(), self.lasts);
        Ok(decision)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use serde_json::{Value, json};

    use super::*;

    fn token(text: &str) -> Token {
        let headers = [(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {text}")).unwrap())];
        Token::read(&HeaderMap::from_iter(headers)).unwrap()
    }

    /// An API server that knows the token `good`, lets it list pods of `a`, and counts what it is asked.
    fn gate(lasts: Duration) -> (Gate, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let counter = counter.clone();
            async move {
                counter.fetch_add(1, Ordering::SeqCst);
                let known =
                    request.headers().get("authorization").is_some_and(|value| value == "Bearer good");
                let mut review: Value =
                    serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                let allowed = review["spec"]["resourceAttributes"]["namespace"] == "a";
                review["status"] = json!({"allowed": allowed});
                let (code, answer) = if known {
                    (201, review)
                } else {
                    (401, json!({"kind": "Status", "status": "Failure", "code": 401, "message": "no"}))
                };
                let response = Response::builder().status(code);
                Ok::<_, std::io::Error>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        (Gate::new(Client::new(service, "default"), lasts), asked)
    }

    fn pods(namespace: &str) -> Right {
        Right::Pods(Some(namespace.to_owned()))
    }

    #[tokio::test]
    async fn the_api_server_decides_and_is_not_asked_twice_in_a_moment() {
        let (gate, asked) = gate(Duration::from_hours(1));
        for _ in 0..3 {
            gate.check(&token("good"), pods("a")).await.unwrap();
            let refused = gate.check(&token("good"), pods("b")).await.unwrap_err();
            assert_eq!(refused.to_string(), "the caller may not list pods in namespace b");
            assert!(matches!(gate.check(&token("bad"), pods("a")).await, Err(Problem::BadToken)));
            assert!(matches!(gate.recognise(&token("bad")).await, Err(Problem::BadToken)));
            gate.recognise(&token("good")).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn a_decision_that_has_run_out_is_asked_for_again() {
        let (gate, asked) = gate(Duration::ZERO);
        for _ in 0..3 {
            gate.check(&token("good"), pods("a")).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn decisions_are_bounded_and_those_that_have_run_out_go_first() {
        let now = Instant::now();
        let (mut decisions, lasts) = (Decisions::default(), Duration::from_secs(10));
        for index in 0..KEPT {
            let at = if index == 0 { now } else { now - lasts };
            decisions.keep(&token(&format!("t{index}")), Right::Nodes, Decision::Allowed, at, lasts);
        }
        decisions.keep(&token("new"), Right::Nodes, Decision::Forbidden, now, lasts);
        assert_eq!(decisions.until.len(), 2);
        assert_eq!(decisions.find(&token("t0"), &Right::Nodes, now), Some(Decision::Allowed));
        assert_eq!(decisions.find(&token("t0"), &Right::Queues, now), None);
        assert_eq!(decisions.find(&token("new"), &Right::Nodes, now), Some(Decision::Forbidden));
        for index in 0..KEPT * 2 {
            decisions.keep(&token(&format!("u{index}")), Right::Nodes, Decision::Unknown, now, lasts);
            assert!(decisions.until.len() <= KEPT);
        }
    }

    #[test]
    fn a_token_is_read_from_its_header_and_shown_to_nobody() {
        let read = |value: &str| {
            let value = HeaderValue::try_from(value).unwrap();
            Token::read(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        assert_eq!(read("bearer  abc ").unwrap().header, "Bearer abc");
        assert_eq!(
            format!("{:?} {:?}", read("Bearer abc").unwrap(), read("Bearer abc").unwrap().header),
            "Token Sensitive"
        );
        assert!(matches!(read("Basic abc"), Err(Problem::NoToken)));
        assert!(matches!(read("Bearer "), Err(Problem::NoToken)));
        assert!(matches!(Token::read(&HeaderMap::new()), Err(Problem::NoToken)));
        assert!(matches!(read(&format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1))), Err(Problem::BadToken)));
    }
}
