//! The four kinds of patches.

use bytes::Bytes;
use muster_schema::decode::DuplicateField;
use serde_json::Value;

use crate::app::Call;
use crate::body;
use crate::meta::{meta, meta_mut};
use crate::objects::{Ownership, Part, Scope};
use crate::read;
use crate::registry::Resource;
use crate::request::WriteOptions;
use crate::respond::Reply;
use crate::rules;
use crate::status::{About, ApiError, ApiResult, Cause};

const PATCH_TYPES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// How often an apply looks anew whether the object is there.
const APPLY_ATTEMPTS: usize = 8;

/// A decoded patch.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Bytes),
    /// RFC 7386.
    Merge(Bytes),
    /// Kubernetes' own merge of built-in kinds.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value, Vec<DuplicateField>),
}

impl Patch {
    /// Reads the patch of a request.
    pub(crate) fn parse(call: &Call, options: &WriteOptions) -> ApiResult<Self> {
        let patch = match body::media_type(&call.headers) {
            "application/json-patch+json" => Self::Json(call.body.clone()),
            "application/merge-patch+json" => Self::Merge(call.body.clone()),
            "application/strategic-merge-patch+json" if call.resource.custom.is_some() => {
                return Err(ApiError::unsupported_media(PATCH_TYPES));
            }
            "application/strategic-merge-patch+json" => {
                let value = serde_json::from_slice(&call.body)
                    .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
                Self::Strategic(value)
            }
            "application/apply-patch+yaml" => {
                if options.field_manager.is_none() {
                    let cause = Cause::required("fieldManager", "is required for apply patch");
                    return Err(ApiError::invalid_options("PatchOptions", &[cause]));
                }
                let (value, duplicates) = body::yaml(&call.body, &call.resource.kind)?;
                Self::Apply(value, duplicates)
            }
            _ => return Err(ApiError::unsupported_patch()),
        };
        if options.force.is_some() && !matches!(patch, Self::Apply(..)) {
            let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
            return Err(ApiError::invalid_options("PatchOptions", &[cause]));
        }
        Ok(patch)
    }

    /// The patched object.
    pub(crate) fn apply(&self, resource: &Resource, current: &Value) -> ApiResult<Value> {
        let mut object = current.clone();
        match self {
            Self::Json(patch) => rules::json_patch(&mut object, patch)?,
            Self::Merge(patch) => rules::merge_patch(&mut object, patch)?,
            Self::Strategic(patch) => rules::strategic_patch(resource, &mut object, patch)?,
            Self::Apply(..) => {}
        }
        // A patch that does not name the version does not insist on one, although the patched object carries it.
        if meta(&object, "resourceVersion") == meta(current, "resourceVersion") && !self.names_version() {
            meta_mut(&mut object).remove("resourceVersion");
        }
        Ok(object)
    }

    fn names_version(&self) -> bool {
        match self {
            Self::Json(patch) => patch.windows(15).any(|text| text == b"resourceVersion"),
            Self::Merge(patch) => serde_json::from_slice::<Value>(patch)
                .is_ok_and(|patch| !meta(&patch, "resourceVersion").is_empty()),
            Self::Strategic(patch) => !meta(patch, "resourceVersion").is_empty(),
            Self::Apply(..) => false,
        }
    }
}

/// Server-side apply: creates the object or merges the manager's fields into it.
pub(crate) async fn apply(
    call: &mut Call,
    name: &str,
    part: Part<'_>,
    options: &WriteOptions,
    (mut applied, duplicates): (Value, Vec<DuplicateField>),
) -> ApiResult<Reply> {
    rules::check_type(&call.resource, &mut applied)?;
    let given = meta(&applied, "name").to_owned();
    if given.is_empty() {
        meta_mut(&mut applied).insert("name".into(), name.into());
    } else if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    if !crate::meta::at(&applied, &["metadata", "managedFields"]).is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let warnings = rules::decode_value(&call.resource, &mut applied, &duplicates, options.field_validation)?;
    call.warnings.extend(warnings);
    let manager = call.default_manager();
    let shared: &Call = call;
    let mut scope = Scope { ownership: Ownership::Given, ..crate::change::scope!(shared, options, &manager) };
    // Merging borrows the scope that then writes, so it gets one of its own.
    let merger = crate::change::scope!(shared, options, &manager);
    let change = &mut |current: &Value| {
        let mut object = rules::applied(&merger, Some(current), &applied, part)?;
        rules::check_type(&shared.resource, &mut object)?;
        if meta(&applied, "resourceVersion").is_empty() {
            meta_mut(&mut object).remove("resourceVersion");
        }
        Ok(object)
    };
    // Another applier may create the object, or somebody delete it, between the look and the write.
    let mut attempts = APPLY_ATTEMPTS;
    loop {
        attempts -= 1;
        let exists = read::find(shared).is_ok();
        let (code, outcome) = if exists {
            (200, scope.modify(name, part, change).await)
        } else if part == Part::Main {
            (201, scope.create(rules::applied(&merger, None, &applied, part)?).await)
        } else {
            let about = About { group: &shared.resource.group, what: &shared.resource.plural, name };
            return Err(ApiError::not_found(about));
        };
        match outcome {
            Err(error) if attempts > 0 && exists && error.reason == "NotFound" => {}
            Err(error) if attempts > 0 && !exists && error.reason == "AlreadyExists" => {}
            outcome => return crate::change::finish(shared, code, options, &outcome?).await,
        }
    }
}
