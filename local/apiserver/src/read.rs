//! Reading: one object, lists with pages.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_admission::selectors::{FieldSelector, LabelSelector};
use muster_store::{Entry, Error as StoreError, Listing, ObjectKey, Query as StoreQuery};
use serde_json::{Value, json};

use crate::app::Call;
use crate::negotiate::Form;
use crate::request::{ListOptions, VersionMatch};
use crate::respond::{self, Reply};
use crate::status::{About, ApiError, ApiResult};
use crate::table;

/// Finds the stored object that the path names.
pub(crate) fn find(call: &Call) -> ApiResult<Arc<Entry>> {
    let name = call.path.name.as_deref().unwrap_or_default();
    let key = ObjectKey::new(call.resource.storage_key.clone(), call.namespace(), name);
    let about = About { group: &call.resource.group, what: &call.resource.plural, name };
    call.app.store.get(&key).ok_or_else(|| ApiError::not_found(about))
}

/// `GET` of one object.
pub(crate) fn get(call: &Call) -> ApiResult<Reply> {
    let entry = find(call)?;
    if let Some(wanted) = call.query.filled("resourceVersion").and_then(|text| text.parse::<u64>().ok()) {
        let current = call.app.store.current_revision();
        if wanted > current {
            return Err(ApiError::revision_too_large(wanted, current));
        }
    }
    Ok(show(call, 200, &entry))
}

/// One stored object in the form the client wants.
pub(crate) fn show(call: &Call, code: u16, entry: &Entry) -> Reply {
    let encoding = call.accepted.encoding;
    match call.accepted.form {
        Form::Object => respond::encoded(code, encoding, respond::typed(&call.resource, entry)),
        form => {
            let object = crate::objects::with_type(&call.resource, &entry.object());
            respond::value(code, encoding, &shaped(call, form, object))
        }
    }
}

/// One object value (with its type) in the form the client wants.
pub(crate) fn shaped(call: &Call, form: Form, object: Value) -> Value {
    match form {
        Form::Object => object,
        Form::Partial => partial(&object),
        Form::Table(version) => {
            let metadata = json!({ "resourceVersion": crate::meta::meta(&object, "resourceVersion") });
            table::table(call, version, &metadata, std::slice::from_ref(&object))
        }
    }
}

/// The metadata of an object as an object of its own.
pub(crate) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

/// Where a list goes on: which revision it shows, and after which object.
struct Continue {
    revision: u64,
    after: (String, String),
}

impl Continue {
    fn encode(revision: u64, namespaced_path: bool, entry: &Entry) -> String {
        let key = entry.key();
        let start = if namespaced_path || key.namespace.is_empty() {
            format!("/{}\u{0}", key.name)
        } else {
            format!("/{}/{}\u{0}", key.namespace, key.name)
        };
        let token = json!({ "v": "meta.k8s.io/v1", "rv": revision, "start": start });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(token: &str, namespace: Option<&str>) -> ApiResult<Self> {
        let wrong = |why: String| {
            ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| {
            let place = match error {
                base64::DecodeError::InvalidByte(place, _)
                | base64::DecodeError::InvalidLastSymbol(place, _) => place,
                _ => token.len() / 4 * 4,
            };
            wrong(format!("illegal base64 data at input byte {place}"))
        })?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if token["v"] != "meta.k8s.io/v1" {
            return Err(wrong("server does not recognize this encoded version \"\"".into()));
        }
        let revision =
            token["rv"].as_u64().ok_or_else(|| wrong("incorrect encoded start resourceVersion".into()))?;
        let start =
            token["start"].as_str().unwrap_or_default().trim_start_matches('/').trim_end_matches('\u{0}');
        let after = match (namespace, start.split_once('/')) {
            (Some(namespace), _) => (namespace.to_owned(), start.to_owned()),
            (None, Some((namespace, name))) => (namespace.to_owned(), name.to_owned()),
            (None, None) => (String::new(), start.to_owned()),
        };
        Ok(Self { revision, after })
    }
}

/// What a list or watch selects.
#[derive(Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The name in the path of a watch of one object.
    name: Option<String>,
    kind: String,
    api_version: String,
}

impl Selection {
    /// Reads the selectors.
    pub(crate) fn parse(call: &Call, options: &ListOptions) -> ApiResult<Self> {
        let resource = &call.resource;
        let labels: LabelSelector =
            options.label_selector.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
        let selectable = resource.custom.as_ref().map(|custom| custom.selectable_fields.as_slice());
        let fields = FieldSelector::parse(&options.field_selector)
            .and_then(|fields| {
                fields.check(&resource.api_version(), &resource.kind, selectable).map(|()| fields)
            })
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        // Objects are matched as they are stored, and both kinds of events are stored as core ones.
        let stored_group = if resource.group == "events.k8s.io" { "" } else { &resource.group };
        let api_version = if stored_group.is_empty() {
            resource.version.clone()
        } else {
            format!("{stored_group}/{}", resource.version)
        };
        Ok(Self { labels, fields, name: call.path.name.clone(), kind: resource.kind.clone(), api_version })
    }

    /// Whether everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.name.is_none() && self.labels.is_everything() && self.fields.terms().is_empty()
    }

    /// The name that every match has.
    pub(crate) fn required_name(&self) -> Option<&str> {
        self.name.as_deref().or_else(|| self.fields.name())
    }

    /// Whether the (stored) object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.name.as_deref().is_none_or(|name| crate::meta::meta(object, "name") == name)
            && self.labels.matches(crate::meta::at(object, &["metadata", "labels"]))
            && self.fields.matches(&self.api_version, &self.kind, object)
    }
}

/// One page of a list.
pub(crate) struct Page {
    /// The revision that the list shows.
    pub revision: u64,
    /// The objects.
    pub entries: Vec<Arc<Entry>>,
    /// Where to go on.
    pub continue_token: Option<String>,
    /// How many more there are, when that is known.
    pub remaining: Option<usize>,
}

impl Page {
    /// The list's metadata.
    pub(crate) fn metadata(&self) -> Value {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if let (Some(fields), Some(token)) = (metadata.as_object_mut(), &self.continue_token) {
            fields.insert("continue".into(), token.clone().into());
            if let Some(remaining) = self.remaining {
                fields.insert("remainingItemCount".into(), remaining.into());
            }
        }
        metadata
    }
}

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You must \
                             start a new list without the continue parameter.";

/// Lists what the options select.
pub(crate) fn page(call: &Call, options: &ListOptions) -> ApiResult<Page> {
    let selection = Selection::parse(call, options)?;
    let namespace = call.resource.namespaced.then_some(call.path.namespace.as_deref()).flatten();
    let current = call.app.store.current_revision();
    if let Some(wanted) = options.resource_version.filter(|wanted| *wanted > current) {
        return Err(ApiError::revision_too_large(wanted, current));
    }
    if let Some(name) = selection.required_name().filter(|_| options.continue_token.is_none())
        && (!call.resource.namespaced || namespace.is_some())
    {
        let key = ObjectKey::new(call.resource.storage_key.clone(), namespace.unwrap_or_default(), name);
        let found = call.app.store.get(&key).filter(|entry| selection.matches(&entry.object()));
        let entries = found.into_iter().collect();
        return Ok(Page { revision: current, entries, continue_token: None, remaining: None });
    }
    let (at, mut after) = match &options.continue_token {
        Some(token) => {
            let place = Continue::decode(token, namespace)?;
            (Some(place.revision), Some(place.after))
        }
        None => (exact_version(options), None),
    };
    let limit = (options.limit > 0).then_some(options.limit);
    let mut entries = Vec::new();
    let mut revision = at;
    loop {
        let wanted = limit.map(|limit| limit - entries.len());
        let start = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let query =
            StoreQuery::new(&call.resource.storage_key).namespace(namespace).after(start).limit(wanted);
        let listing: Listing = match revision {
            None => call.app.store.list(&query),
            Some(revision) => {
                call.app.store.list_at(&query, revision).map_err(|error| expired(&error, options))?
            }
        };
        revision = Some(listing.revision);
        let last = listing.entries.last().cloned();
        let chosen = listing
            .entries
            .into_iter()
            .filter(|entry| selection.is_empty() || selection.matches(&entry.object()));
        entries.extend(chosen);
        let Some(last) = last.filter(|_| listing.remaining > 0) else {
            return Ok(Page { revision: listing.revision, entries, continue_token: None, remaining: None });
        };
        if limit.is_some_and(|limit| entries.len() >= limit) {
            let token = Continue::encode(listing.revision, namespace.is_some(), &last);
            let remaining = selection.is_empty().then_some(listing.remaining);
            return Ok(Page { revision: listing.revision, entries, continue_token: Some(token), remaining });
        }
        after = Some((last.key().namespace.to_string(), last.key().name.to_string()));
    }
}

/// The revision that a list has to show; a page at a revision shows that one, too, unless told otherwise.
fn exact_version(options: &ListOptions) -> Option<u64> {
    let exact = match options.version_match {
        Some(version_match) => version_match == VersionMatch::Exact,
        None => options.limit > 0,
    };
    options.resource_version.filter(|version| exact && *version > 0)
}

fn expired(error: &StoreError, options: &ListOptions) -> ApiError {
    match error {
        StoreError::Expired { .. } if options.continue_token.is_some() => ApiError::expired(EXPIRED_TOKEN),
        StoreError::Expired { requested, .. } => {
            ApiError::expired(format!("The provided resource version {requested} is too old"))
        }
        StoreError::Future { requested, current } => ApiError::revision_too_large(*requested, *current),
        other => crate::objects::storage_error(other),
    }
}

/// `GET` of a collection.
pub(crate) fn list(call: &Call) -> ApiResult<Reply> {
    let options = ListOptions::parse(&call.query, call.path.watch_prefix)?;
    let page = page(call, &options)?;
    let metadata = page.metadata();
    let encoding = call.accepted.encoding;
    let objects =
        || page.entries.iter().map(|entry| crate::objects::with_type(&call.resource, &entry.object()));
    Ok(match call.accepted.form {
        Form::Object => {
            respond::encoded(200, encoding, respond::list(&call.resource, &metadata, &page.entries))
        }
        Form::Partial => {
            let items: Vec<Value> = objects().map(|object| partial(&object)).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
            });
            respond::value(200, encoding, &list)
        }
        Form::Table(version) => {
            let items: Vec<Value> = objects().collect();
            respond::value(200, encoding, &table::table(call, version, &metadata, &items))
        }
    })
}
