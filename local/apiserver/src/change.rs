//! Writing whole objects: create, replace, patch, delete.

use serde_json::{Value, json};

use crate::app::Call;
use crate::body;
use crate::meta::{meta, meta_mut};
use crate::objects::{DeleteOptions, Part, Scope, Written, deletion_details, with_type};
use crate::patching;
use crate::plugins;
use crate::read;
use crate::request::{ListOptions, WriteOptions};
use crate::respond::{self, Reply};
use crate::rules;
use crate::status::{self, About, ApiError, ApiResult, Cause};

/// Runs `work` with the scope of a call.
macro_rules! scope {
    ($call:expr, $options:expr, $manager:expr) => {
        $crate::objects::Scope {
            app: &$call.app,
            resource: &$call.resource,
            namespace: $call.namespace(),
            options: $options,
            default_manager: $manager,
            ownership: $crate::objects::Ownership::Writer,
        }
    };
}
pub(crate) use scope;

/// The answer to a write.
pub(crate) fn written(call: &Call, code: u16, written: &Written) -> Reply {
    match written {
        Written::Stored(entry) => read::show(call, code, entry),
        Written::Shown(object) => {
            let object = with_type(&call.resource, object);
            let shown = read::shaped(call, call.accepted.form, object);
            respond::value(code, call.accepted.encoding, &shown)
        }
    }
}

/// Decodes the body of a create or replace.
pub(crate) fn decoded(call: &mut Call, options: &WriteOptions) -> ApiResult<Value> {
    let (mut object, duplicates) = body::object(call, &call.resource.kind, &call.resource.api_version())?;
    rules::check_type(&call.resource, &mut object)?;
    let warnings = rules::decode_value(&call.resource, &mut object, &duplicates, options.field_validation)?;
    call.warnings.extend(warnings);
    Ok(object)
}

/// `POST` to a collection.
pub(crate) async fn create(call: &mut Call) -> ApiResult<Reply> {
    if !call.resource.has_verb("get") {
        return crate::reviews::create(call);
    }
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let object = decoded(call, &options)?;
    let manager = call.default_manager();
    let result = scope!(call, &options, &manager).create(object).await;
    finish(call, 201, &options, &result?).await
}

/// `PUT` of an object.
pub(crate) async fn update(call: &mut Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let object = decoded(call, &options)?;
    let name = call.path.name.clone().unwrap_or_default();
    require_version(call, &name, &object)?;
    replace(call, &name, &options, Part::Main, object).await
}

/// Custom resources are only replaced at a known version.
fn require_version(call: &Call, name: &str, object: &Value) -> ApiResult<()> {
    if call.resource.custom.is_none() || !meta(object, "resourceVersion").is_empty() {
        return Ok(());
    }
    read::find(call)?;
    let about = About { group: &call.resource.group, what: &call.resource.plural, name };
    let cause = Cause::invalid("metadata.resourceVersion", 0, "must be specified for an update");
    Err(ApiError::invalid(about, &[cause]))
}

/// Replaces the object (or a part of it) by the one given.
pub(crate) async fn replace(
    call: &mut Call,
    name: &str,
    options: &WriteOptions,
    part: Part<'_>,
    mut object: Value,
) -> ApiResult<Reply> {
    if meta(&object, "name").is_empty() {
        meta_mut(&mut object).insert("name".into(), name.into());
    }
    let manager = call.default_manager();
    let result = scope!(call, options, &manager).modify(name, part, &mut |_| Ok(object.clone())).await;
    finish(call, 200, options, &result?).await
}

/// Does what has to follow a write, then answers it.
pub(crate) async fn finish(
    call: &Call,
    code: u16,
    options: &WriteOptions,
    result: &Written,
) -> ApiResult<Reply> {
    if !options.dry_run {
        plugins::after_write(&call.app, &call.resource, &result.object()).await?;
    }
    Ok(written(call, code, result))
}

/// `PATCH` of an object.
pub(crate) async fn patch(call: &mut Call) -> ApiResult<Reply> {
    patch_part(call, Part::Main).await
}

/// Patches a part of an object.
pub(crate) async fn patch_part(call: &mut Call, part: Part<'_>) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let name = call.path.name.clone().unwrap_or_default();
    let patch = patching::Patch::parse(call, &options)?;
    if let patching::Patch::Apply(object, duplicates) = patch {
        return patching::apply(call, &name, part, &options, (object, duplicates)).await;
    }
    let manager = call.default_manager();
    let resource = call.resource.clone();
    let mut told = Vec::new();
    let result = scope!(call, &options, &manager)
        .modify(&name, part, &mut |current| {
            let mut object = patch.apply(&resource, current)?;
            rules::check_type(&resource, &mut object)?;
            told = rules::decode_value(&resource, &mut object, &[], options.field_validation)?;
            Ok(object)
        })
        .await;
    call.warnings.extend(told);
    finish(call, 200, &options, &result?).await
}

/// Options of a deletion, from the body and the query.
pub(crate) fn delete_options(call: &Call) -> ApiResult<(DeleteOptions, WriteOptions)> {
    let body = if call.body.is_empty() {
        Value::Null
    } else {
        body::other(call, "DeleteOptions", "meta.k8s.io/v1")?
    };
    let mut write = WriteOptions::parse(&call.query, "DeleteOptions")?;
    let listed = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|value| value == "All"));
    write.dry_run |= listed;
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let query_grace = call.query.filled("gracePeriodSeconds").and_then(|text| text.parse().ok());
    let query_policy = call.query.filled("propagationPolicy").map(str::to_owned);
    let orphan =
        body["orphanDependents"].as_bool().map(|orphan| if orphan { "Orphan" } else { "Background" });
    let options = DeleteOptions {
        grace_period_seconds: body["gracePeriodSeconds"].as_i64().or(query_grace),
        propagation: text(&body["propagationPolicy"]).or(query_policy).or(orphan.map(str::to_owned)),
        uid: text(&body["preconditions"]["uid"]),
        resource_version: text(&body["preconditions"]["resourceVersion"]),
    };
    if let Some(other) = options.propagation.as_deref()
        && !matches!(other, "Foreground" | "Background" | "Orphan")
    {
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        let cause = Cause::not_supported("propagationPolicy", format!("\"{other}\""), &supported);
        return Err(ApiError::invalid_options("DeleteOptions", &[cause]));
    }
    Ok((options, write))
}

/// `DELETE` of an object.
pub(crate) async fn delete(call: &mut Call) -> ApiResult<Reply> {
    let (options, write) = delete_options(call)?;
    let name = call.path.name.clone().unwrap_or_default();
    let result = scope!(call, &write, "").delete(&name, &options).await;
    let (state, gone) = result?;
    if !write.dry_run {
        plugins::after_write(&call.app, &call.resource, &state.object()).await?;
    }
    if gone && !rules::answers_with_object(&call.resource) {
        let details = deletion_details(&call.resource, &state.object());
        return Ok(respond::value(200, call.accepted.encoding, &status::success(None, Some(details))));
    }
    Ok(written(call, 200, &state))
}

/// `DELETE` of a collection.
pub(crate) async fn delete_collection(call: &mut Call) -> ApiResult<Reply> {
    let (options, write) = delete_options(call)?;
    let list = ListOptions::parse(&call.query, false)?;
    let page = read::page(call, &list)?;
    let metadata = json!({ "resourceVersion": page.revision.to_string() });
    for entry in &page.entries {
        let key = entry.key();
        let mut scope = Scope { namespace: &key.namespace, ..scope!(call, &write, "") };
        match scope.delete(&key.name, &options).await {
            Ok((state, _)) if !write.dry_run => {
                plugins::after_write(&call.app, &call.resource, &state.object()).await?;
            }
            Ok(_) => {}
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let list = respond::list(&call.resource, &metadata, &page.entries);
    Ok(respond::encoded(200, call.accepted.encoding, list))
}
