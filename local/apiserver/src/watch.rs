//! Watching: a stream of changes as lines of JSON.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use muster_store::{Entry, Error as StoreError, Event, EventKind, Start, Watch};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::Call;
use crate::lines::{Change, Representation};
use crate::negotiate::Form;
use crate::read::Selection;
use crate::registry::Resource;
use crate::request::ListOptions;
use crate::respond::{self, BodyError, Reply};
use crate::status::{ApiError, ApiResult};
use crate::{objects, read, table};

/// How often a quiet watch tells the revision it has reached.
const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);
/// Shortest and longest life of a watch whose client sets none.
const DEFAULT_LIFE_SECONDS: std::ops::Range<u64> = 1800..3600;

/// One open watch.
struct Stream {
    call: Call,
    selection: Selection,
    watch: Watch,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The bookmark that ends the initial events.
    initial_end: Option<u64>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    finished: bool,
    representation: Representation,
    type_meta: String,
}

/// `GET` with `watch`.
pub(crate) async fn answer(call: &mut Call) -> ApiResult<Reply> {
    let options = ListOptions::parse(&call.query, call.path.watch_prefix)?;
    let selection = Selection::parse(call, &options)?;
    let namespace = call.resource.namespaced.then_some(call.path.namespace.as_deref()).flatten();
    let store = &call.app.store;
    let current = store.current_revision();
    let wanted = options.resource_version.unwrap_or(0);
    if wanted > current {
        // The client may have seen another replica's write; give this one a moment.
        let deadline = Instant::now() + Duration::from_secs(3);
        if store.wait_for_revision(wanted, deadline).await.is_err() {
            return Err(ApiError::revision_too_large(wanted, current));
        }
    }
    let send_initial = options.send_initial_events.unwrap_or(wanted == 0);
    let opened = if send_initial {
        let (listing, watch) = store
            .list_and_watch(&call.resource.storage_key, namespace)
            .map_err(|e| objects::storage_error(&e))?;
        Ok((listing.entries, listing.revision, watch))
    } else if wanted == 0 {
        store.watch(&call.resource.storage_key, namespace, Start::Now).map(|watch| (Vec::new(), 0, watch))
    } else {
        store
            .watch(&call.resource.storage_key, namespace, Start::After(wanted))
            .map(|watch| (Vec::new(), 0, watch))
    };
    let (initial, revision, watch) = match opened {
        Ok(opened) => opened,
        Err(StoreError::Expired { requested, oldest }) => return Ok(expired(call, requested, oldest)),
        Err(error) => return Err(objects::storage_error(&error)),
    };
    let now = Instant::now();
    let life = options.timeout_seconds.filter(|seconds| *seconds > 0);
    let life = life.unwrap_or_else(|| rand::rng().random_range(DEFAULT_LIFE_SECONDS));
    let stream = Stream {
        selection,
        watch,
        initial: initial.into_iter(),
        initial_end: (options.send_initial_events == Some(true) && options.bookmarks).then_some(revision),
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_INTERVAL,
        ends: now + Duration::from_secs(life),
        finished: false,
        representation: Representation {
            resource: call.resource.clone(),
            form: call.accepted.form,
            include: call.query.filled("includeObject").unwrap_or_default().into(),
            second: 0,
        },
        type_meta: respond::type_meta(&call.resource),
        call: detach(call),
    };
    let pieces = stream::unfold(stream, |mut stream| async move {
        let line = stream.next().await?;
        Some((Ok::<Bytes, BodyError>(line), stream))
    });
    Ok(streaming(respond::streamed(pieces.boxed())))
}

fn detach(call: &mut Call) -> Call {
    Call {
        app: call.app.clone(),
        user: call.user.clone(),
        resource: call.resource.clone(),
        path: call.path.clone(),
        query: call.query.clone(),
        headers: http::HeaderMap::new(),
        body: Bytes::new(),
        upgrade: None,
        method: call.method.clone(),
        accepted: call.accepted,
        warnings: Vec::new(),
    }
}

fn streaming(body: respond::Body) -> Reply {
    let mut reply = Reply::new(body);
    let json = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, json);
    reply
}

fn error_line(refusal: &ApiError) -> Bytes {
    let line = json!({ "type": "ERROR", "object": refusal.to_value() });
    format!("{line}\n").into()
}

fn expired(_call: &Call, requested: u64, oldest: u64) -> Reply {
    let refusal = ApiError::expired(format!("too old resource version: {requested} ({oldest})"));
    streaming(respond::full(error_line(&refusal)))
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        if self.finished {
            return None;
        }
        loop {
            if let Some(entry) = self.initial.next() {
                if self.selection.is_empty() || self.selection.matches(&entry.object()) {
                    // Everybody begins somewhere else: nobody else wants this line now.
                    return Some(self.line(Change::Added, &entry));
                }
                continue;
            }
            if let Some(revision) = self.initial_end.take() {
                return Some(self.bookmark(revision, true));
            }
            let shutdown = self.call.app.shutdown.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                event = self.watch.next() => match event {
                    Ok(event) => {
                        if let Some(line) = self.change(&event) {
                            return Some(line);
                        }
                    }
                    Err(StoreError::Expired { requested, oldest }) => {
                        self.finished = true;
                        let text = format!("too old resource version: {requested} ({oldest})");
                        return Some(error_line(&ApiError::expired(text)));
                    }
                    Err(_) => return None,
                },
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    let revision = self.watch.caught_up();
                    return Some(self.bookmark(revision, false));
                }
            }
        }
    }

    /// The line of a change, none when the selection never saw the object.
    fn change(&self, event: &Event) -> Option<Bytes> {
        let change = self.seen(event)?;
        let size = event.entry.size();
        let second = match self.representation.form {
            Form::Table(_) => jiff::Timestamp::now().as_second(),
            Form::Object | Form::Partial => 0,
        };
        let representation = Representation { second, ..self.representation.clone() };
        Some(self.call.app.lines.get(event.revision, change, &representation, size, || {
            match (change, &event.previous) {
                // The last selected state, at the revision of the change.
                (Change::Left, Some(previous)) => {
                    let mut object = (*previous.object()).clone();
                    crate::meta::meta_mut(&mut object)
                        .insert("resourceVersion".into(), event.revision.to_string().into());
                    self.value_line(change, objects::with_type(&self.call.resource, &object))
                }
                _ => self.line(change, &event.entry),
            }
        }))
    }

    /// What the change is to a watcher of this selection.
    fn seen(&self, event: &Event) -> Option<Change> {
        let change = match event.kind {
            EventKind::Added => Change::Added,
            EventKind::Modified => Change::Modified,
            EventKind::Deleted => Change::Deleted,
        };
        if self.selection.is_empty() {
            return Some(change);
        }
        let was = event.previous.as_ref().is_some_and(|entry| self.selection.matches(&entry.object()));
        let is = change != Change::Deleted && self.selection.matches(&event.entry.object());
        match (was, is) {
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) if change == Change::Deleted => Some(Change::Deleted),
            (true, false) => Some(Change::Left),
            (false, false) => None,
        }
    }

    fn line(&self, change: Change, entry: &Entry) -> Bytes {
        if self.representation.form != Form::Object {
            return self.value_line(change, objects::with_type(&self.call.resource, &entry.object()));
        }
        let object = respond::view(&self.call.resource, entry);
        let mut out = Vec::with_capacity(object.len() + self.type_meta.len() + 40);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(change.event_type().as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        respond::push_typed(&mut out, &self.type_meta, &object);
        out.extend_from_slice(b"}\n");
        out.into()
    }

    fn value_line(&self, change: Change, object: Value) -> Bytes {
        let object = read::shaped(&self.call, self.representation.form, object);
        format!("{}\n", json!({ "type": change.event_type(), "object": object })).into()
    }

    fn bookmark(&self, revision: u64, ends_initial: bool) -> Bytes {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if ends_initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let resource: &Resource = &self.call.resource;
        let object = match self.representation.form {
            Form::Object => {
                json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata })
            }
            Form::Partial => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            Form::Table(version) => {
                let empty = json!({ "metadata": metadata });
                table::table(&self.call, version, &empty["metadata"], &[])
            }
        };
        format!("{}\n", json!({ "type": "BOOKMARK", "object": object })).into()
    }
}
