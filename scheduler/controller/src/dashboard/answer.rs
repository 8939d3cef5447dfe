//! The answers: who may have them, what they are worked out from, and within which bounds.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::access::{Gate, Right, Token};
use super::leader::Leader;
use super::problem::Problem;
use super::reply::{self, Reply};
use super::route::{Asked, Subject};
use super::view::{Handle, View};
use super::{Limits, Suppose, Supposition, openapi, privacy};
use crate::objects::GangKey;
use crate::planner::{GangReport, Phase, Selection, Survey};

/// Gangs of a page when nothing is said.
const PAGE: usize = 250;
/// Most gangs of a page.
const LARGEST_PAGE: usize = 500;
/// Most nodes that are supposed to be there.
const MOST_NODES: usize = 10_000;
/// How long a newer picture is waited for before an older one is good enough.
const PATIENCE: Duration = Duration::from_secs(2);

/// All that answers need.
pub(super) struct Desk {
    pub(super) handle: Handle,
    pub(super) gate: Gate,
    pub(super) leader: Leader,
    pub(super) suppose: Arc<dyn Suppose>,
    pub(super) limits: Limits,
    pub(super) requests: Semaphore,
    pub(super) what_ifs: Arc<Semaphore>,
}

impl Desk {
    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Reply {
        self.answered(request).await.unwrap_or_else(|problem| problem.reply())
    }

    async fn answered(&self, request: Request<Incoming>) -> Result<Reply, Problem> {
        let uri = request.uri();
        let asked = Asked::read(request.method(), uri.path(), uri.query().unwrap_or_default())?;
        let token = Token::read(request.headers())?;
        // Whoever sends slowly holds up nobody: no slot is taken before the whole request is there.
        let (head, body) = request.into_parts();
        let manifest = if asked.route.subject == Subject::WhatIf {
            timely(self.limits.deadline, self.gate.recognise(&token)).await?;
            Some(self.read(body).await?)
        } else {
            None
        };
        let _slot = self
            .requests
            .try_acquire()
            .map_err(|_| Problem::Busy("as many requests as are answered at a time"))?;
        timely(self.limits.deadline, self.content(&asked, &token, &head.headers, manifest)).await
    }

    /// Reads a bounded body.
    async fn read(&self, body: Incoming) -> Result<String, Problem> {
        let Limits { body: most, patience, .. } = self.limits;
        if body.size_hint().lower() > most as u64 {
            return Err(Problem::TooLarge(most));
        }
        let bytes = match timeout(patience, Limited::new(body, most).collect()).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(failure)) if failure.is::<LengthLimitError>() => return Err(Problem::TooLarge(most)),
            Ok(Err(failure)) => return Err(Problem::Body(failure.to_string())),
            Err(_) => return Err(Problem::TooSlow(patience.as_secs())),
        };
        String::from_utf8(bytes.into()).map_err(|_| Problem::Body("it is not UTF-8".to_owned()))
    }

    async fn content(
        &self,
        asked: &Asked,
        token: &Token,
        headers: &HeaderMap,
        manifest: Option<String>,
    ) -> Result<Reply, Problem> {
        let right = match asked.route.subject {
            Subject::Gangs => Right::Pods(asked.parameter("namespace").map(str::to_owned)),
            Subject::Gang => Right::Pods(Some(asked.segment("namespace"))),
            Subject::Queues => Right::Queues,
            Subject::Nodes | Subject::Topology => Right::Nodes,
            Subject::WhatIf => return self.what_if(asked, token, headers, manifest).await,
            Subject::Description => {
                self.gate.check(token, Right::Descriptions).await?;
                return reply::json(headers, openapi::description());
            }
        };
        self.gate.check(token, right).await?;
        let view = self.view().await?;
        let reply = match asked.route.subject {
            Subject::Gang => {
                let (namespace, name) = (asked.segment("namespace"), asked.segment("name"));
                let report = self.gang(&view, token, namespace, name).await?;
                reply::json(headers, &report)
            }
            Subject::Queues => reply::json(headers, &json!({ "queues": ask(&view, Survey::queues).await? })),
            Subject::Nodes => reply::json(headers, &json!({ "nodes": ask(&view, Survey::nodes).await? })),
            Subject::Topology => reply::json(headers, &ask(&view, Survey::topology).await?),
            Subject::Gangs | Subject::WhatIf | Subject::Description => {
                reply::json(headers, &self.gangs(&view, token, asked).await?)
            }
        };
        Ok(dated(reply?, view.taken))
    }

    /// A picture of the planner; of two replicas the one that leads has it.
    async fn view(&self) -> Result<Arc<View>, Problem> {
        match timeout(PATIENCE.min(self.limits.deadline / 2), self.handle.view()).await {
            Ok(Some(view)) => Ok(view),
            Ok(None) => Err(Problem::NotLeading(self.leader.name().await)),
            Err(_) => self.handle.last().ok_or(Problem::NotSynced),
        }
    }

    async fn gang(
        &self,
        view: &View,
        token: &Token,
        namespace: String,
        name: String,
    ) -> Result<GangReport, Problem> {
        let open = self.gate.has(token, Right::Pods(None)).await?;
        let key = GangKey { namespace: namespace.clone(), name: name.clone() };
        // A pod on its own is asked for by its name.
        let alone = GangKey { name: format!("pod {name}"), ..key.clone() };
        let found = ask(view, move |survey| survey.report(&key).or_else(|| survey.report(&alone))).await?;
        let mut report = found.ok_or(Problem::NoSuchGang { namespace, name })?;
        if !open {
            privacy::hide_others(&mut report);
        }
        Ok(report)
    }

    /// A page of gangs.
    async fn gangs(&self, view: &View, token: &Token, asked: &Asked) -> Result<serde_json::Value, Problem> {
        let selection = Selection {
            namespace: asked.parameter("namespace").map(str::to_owned),
            queue: asked.parameter("queue").map(str::to_owned),
            phase: asked.parameter("phase").map(phase).transpose()?,
        };
        let limit = asked.number("limit", 1, LARGEST_PAGE)?.unwrap_or(PAGE);
        let after = asked.parameter("continue").map(position).transpose()?;
        let open = self.gate.has(token, Right::Pods(None)).await?;
        // What has been worked out by then is answered, and the rest is the next page.
        let until = Instant::now() + self.limits.deadline / 2;
        let (mut gangs, rest) = ask(view, move |survey| {
            let mut keys = survey.gangs(&selection).into_iter();
            let mut keys =
                keys.by_ref().skip_while(|key| after.as_ref().is_some_and(|after| key <= after)).peekable();
            let (mut gangs, mut last) = (Vec::new(), None);
            while gangs.len() < limit && (gangs.is_empty() || Instant::now() < until) {
                let Some(key) = keys.next() else { break };
                gangs.extend(survey.report(&key));
                last = Some(key);
            }
            (gangs, last.filter(|_| keys.peek().is_some()))
        })
        .await?;
        if !open {
            gangs.iter_mut().for_each(privacy::hide_others);
        }
        let mut page = json!({ "gangs": gangs });
        if let Some(rest) = rest {
            page["continue"] = json!(rest.to_string());
        }
        Ok(page)
    }

    async fn what_if(
        &self,
        asked: &Asked,
        token: &Token,
        headers: &HeaderMap,
        manifest: Option<String>,
    ) -> Result<Reply, Problem> {
        let more_nodes = match (asked.number("addNodes", 1, MOST_NODES)?, asked.parameter("like")) {
            (Some(count), Some(like)) => Some((count as u16, like.to_owned())),
            (None, None) => None,
            _ => return Err(Problem::Parameter("addNodes and like go together".to_owned())),
        };
        let manifest = manifest.filter(|text| !text.trim().is_empty());
        if manifest.is_none() {
            if more_nodes.is_none() {
                let missing = "the body must be a manifest, or the query must have addNodes and like";
                return Err(Problem::Parameter(missing.to_owned()));
            }
            // Everybody who waits is told of.
            self.gate.check(token, Right::Pods(None)).await?;
        }
        let full = |_| Problem::Busy("as many what-ifs as are worked out at a time");
        let slot = self.what_ifs.clone().try_acquire_owned().map_err(full)?;
        let open = self.gate.has(token, Right::Pods(None)).await?;
        let view = self.view().await?;
        let planner = ask(&view, |survey| survey.planner().clone()).await?;
        let namespace = asked.parameter("namespace").unwrap_or("default").to_owned();
        let supposition = Supposition { manifest, namespace, more_nodes };
        let supposed = self.suppose.suppose(supposition, planner, self.gate.client(token));
        let supposed = supposed.await.map_err(Problem::Refused)?;
        for namespace in supposed.namespaces() {
            self.gate.check(token, Right::Pods(Some(namespace))).await?;
        }
        let taken = view.taken;
        // Whoever does not wait for the answer leaves the slot taken for as long as it is worked out.
        let worked_out = move || {
            let prospects = supposed.prospects(Timestamp::now());
            drop(slot);
            prospects
        };
        let mut prospects = elsewhere(worked_out).await?;
        if !open {
            prospects.iter_mut().for_each(privacy::hide_others_of_prospect);
        }
        Ok(dated(reply::json(headers, &json!({ "gangs": prospects }))?, taken))
    }
}

async fn timely<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    timeout(deadline, answer).await.map_err(|_| Problem::Late(deadline.as_secs()))?
}

/// Asks a picture, where that holds up nobody else's work.
async fn ask<T: Send + 'static>(
    view: &View,
    question: impl FnOnce(&mut Survey) -> T + Send + 'static,
) -> Result<T, Problem> {
    let mut survey = view.survey.clone().lock_owned().await;
    elsewhere(move || question(&mut survey)).await
}

async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::Broken(error.to_string()))
}

/// The moment that an answer is about.
fn dated(mut reply: Reply, taken: Timestamp) -> Reply {
    let date = taken.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::try_from(date) {
        reply.headers_mut().insert(header::LAST_MODIFIED, date);
    }
    reply
}

fn phase(text: &str) -> Result<Phase, Problem> {
    let phases = [("waiting", Phase::Waiting), ("running", Phase::Running)];
    let found = phases.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found
        .map(|(_, phase)| phase)
        .ok_or_else(|| Problem::Parameter(format!("phase must be Waiting or Running, not {text}")))
}

/// Where the page before ended.
fn position(text: &str) -> Result<GangKey, Problem> {
    let (namespace, name) = text.split_once('/').ok_or_else(|| {
        Problem::Parameter(format!("continue must be what the page before gave, not {text}"))
    })?;
    Ok(GangKey { namespace: namespace.to_owned(), name: name.to_owned() })
}
