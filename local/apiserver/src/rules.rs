//! Where the generic object life asks what a kind wants: decoding, defaults, validation, ownership of fields.

use muster_admission as admission;
use muster_schema::decode::{self, DuplicateField};
use muster_schema::strategic::apply_strategic_patch;
use muster_schema::{apply, patch};
use serde_json::{Value, json};

use crate::custom;
use crate::meta::{at, finalizers, is_deleting, meta_mut, now, set_at, text};
use crate::objects::{DeleteOptions, Ownership, Part, Scope, pod_finished, set_deletion};
use crate::registry::Resource;
use crate::request::FieldValidation;
use crate::status::{About, ApiError, ApiResult, Cause};

/// Built-in kinds that count the changes of their spec.
const WITH_GENERATION: &[(&str, &str)] = &[
    ("", "pods"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("", "replicationcontrollers"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("discovery.k8s.io", "endpointslices"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceslices"),
];

/// Whether objects of the resource count the changes of their spec.
pub(crate) fn has_generation(resource: &Resource) -> bool {
    resource.custom.is_some()
        || WITH_GENERATION.contains(&(resource.group.as_str(), resource.plural.as_str()))
}

/// Whether anything but metadata and status changed.
pub(crate) fn spec_changed(resource: &Resource, old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return true };
    let own = |key: &&String| *key != "metadata" && !(*key == "status" && resource.has_status());
    old.keys().chain(new.keys()).filter(own).any(|key| old.get(key) != new.get(key))
}

/// Whether objects of the resource are stored in the form of another version.
pub(crate) fn is_view(resource: &Resource) -> bool {
    resource.custom.is_none() && admission::convert::is_view(&resource.api_version())
}

/// Turns a stored object into the form of the resource's version (in place; types are not stored).
pub(crate) fn to_view(resource: &Resource, object: &mut Value) {
    convert(resource, object, admission::convert::to_view);
}

/// Turns an object of the resource's version into the stored form, without its type.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    convert(resource, object, admission::convert::to_stored);
}

fn convert(resource: &Resource, object: &mut Value, change: fn(&str, &mut Value)) {
    if is_view(resource) {
        if let Some(fields) = object.as_object_mut() {
            fields.insert("kind".into(), resource.kind.clone().into());
        }
        change(&resource.api_version(), object);
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
}

/// Checks the type that a body names against the path, filling it in where it is missing.
pub(crate) fn check_type(resource: &Resource, object: &mut Value) -> ApiResult<()> {
    let kind = &resource.kind;
    let wanted = resource.api_version();
    let Some(fields) = object.as_object_mut() else {
        let why = "json: cannot unmarshal array into Go value of type struct";
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: {why}"
        )));
    };
    let given = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (given_version, given_kind) =
        (given("apiVersion").map(str::to_owned), given("kind").map(str::to_owned));
    if let Some(other) = given_version.as_ref().filter(|given| **given != wanted) {
        let version = other.rsplit('/').next().unwrap_or(other);
        let shown = given_kind.as_deref().unwrap_or(kind);
        if resource.custom.is_some() {
            let why = format!(
                "the API version in the data ({other}) does not match the expected API version ({wanted})"
            );
            return Err(ApiError::bad_request(why));
        }
        let why = format!(
            "{shown} in version \"{version}\" cannot be handled as a {kind}: no kind \"{shown}\" is registered for version \
             \"{other}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        return Err(ApiError::bad_request(why));
    }
    if let Some(other) = given_kind.as_ref().filter(|given| *given != kind) {
        let version = &resource.version;
        let why = format!(
            "{other} in version \"{version}\" cannot be handled as a {kind}: converting ({}.{other}) to ({}.{kind}): \
             unknown conversion",
            scheme_name(&resource.group, version),
            if resource.group.is_empty() {
                "core"
            } else {
                resource.group.split('.').next().unwrap_or_default()
            },
        );
        return Err(ApiError::bad_request(why));
    }
    fields.insert("apiVersion".into(), wanted.into());
    fields.insert("kind".into(), kind.clone().into());
    Ok(())
}

fn scheme_name<'a>(_group: &str, version: &'a str) -> &'a str {
    version
}

/// Fills in defaults.
pub(crate) fn default_object(resource: &Resource, object: &mut Value) {
    match &resource.custom {
        Some(custom) => custom.version.validator.default(object),
        None if is_definition(resource) => muster_schema::structural::apply_definition_defaults(object),
        None => admission::defaults::apply(&resource.api_version(), &resource.kind, object),
    }
}

/// Whether this is the kind of custom resource definitions.
fn is_definition(resource: &Resource) -> bool {
    resource.is("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Sets what only the server sets at creation.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Value) {
    if is_definition(resource) {
        custom::prepare_definition(object);
    } else if resource.custom.is_none() {
        admission::prepare::create(&resource.api_version(), &resource.kind, object);
    }
    if has_generation(resource) {
        meta_mut(object).insert("generation".into(), 1.into());
    }
}

/// Sets what only the server sets at a change, and keeps what this part of the object may not touch.
pub(crate) fn prepare_update(resource: &Resource, old: &Value, new: &mut Value, part: Part<'_>) {
    match part {
        Part::Main if resource.has_status() => set_at(new, &["status"], old.get("status").cloned()),
        Part::Main => {}
        Part::Subresource(subresource) => restrict(resource, subresource, old, new),
    }
    if !is_definition(resource) && resource.custom.is_none() {
        let subresource = match part {
            Part::Main => None,
            Part::Subresource(subresource) => Some(subresource),
        };
        admission::prepare::update(&resource.api_version(), &resource.kind, old, new, subresource);
    }
    if is_definition(resource) && part == Part::Main {
        custom::prepare_definition_update(new);
    }
    if has_generation(resource) && crate::meta::generation(old) > 0 {
        let grown = i64::from(spec_changed(resource, old, new));
        // A binding gives a pod its node without counting as a change of its spec.
        let grown = if part == Part::Subresource("binding") { 0 } else { grown };
        meta_mut(new).insert("generation".into(), (crate::meta::generation(old) + grown).into());
    }
}

/// Kinds whose status clients may give at creation.
pub(crate) fn keeps_status_on_create(resource: &Resource) -> bool {
    resource.is("", "nodes")
}

/// Causes in the words of the admission crate.
fn causes(errors: &[admission::field::FieldError]) -> Vec<Cause> {
    let cause = |error: &admission::field::FieldError| Cause {
        reason: error.reason.code(),
        message: error.body(),
        field: error.field.clone(),
    };
    errors.iter().map(cause).collect()
}

/// Definitions and custom objects may have finalizers of any name; only core kinds want qualified ones.
fn free_finalizers(resource: &Resource, errors: &mut Vec<Cause>) {
    if resource.custom.is_some() || is_definition(resource) {
        errors.retain(|cause| !cause.message.contains("neither a standard finalizer name"));
    }
}

/// Field errors of a new object.
pub(crate) fn validate_create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut errors = causes(&admission::validate::create(&resource.api_version(), &resource.kind, object));
    free_finalizers(resource, &mut errors);
    if let Some(custom) = &resource.custom {
        errors.extend(custom::causes(&custom.version.validator.validate_create(object)));
    } else if is_definition(resource) {
        errors.extend(custom::check_definition(object));
    }
    errors
}

/// Field errors of a changed object.
pub(crate) fn validate_update(resource: &Resource, old: &Value, new: &Value, part: Part<'_>) -> Vec<Cause> {
    let subresource = match part {
        Part::Main => None,
        // The part itself was checked by its handler; the rest is as it was.
        Part::Subresource("binding" | "finalize" | "approval") => Some("status"),
        Part::Subresource(subresource) => Some(subresource),
    };
    let api_version = resource.api_version();
    let mut errors =
        causes(&admission::validate::update(&api_version, &resource.kind, old, new, subresource));
    free_finalizers(resource, &mut errors);
    if let Some(custom) = &resource.custom {
        errors.extend(custom::causes(&custom.version.validator.validate_update(new, old)));
    } else if is_definition(resource) && part == Part::Main {
        errors.extend(custom::check_definition(new));
        errors.extend(custom::check_definition_update(old, new));
    }
    errors
}

/// The subresource as managed fields name it: the main resource has none.
fn subresource_of(part: Part<'_>) -> &str {
    match part {
        Part::Main => "",
        Part::Subresource(subresource) => subresource,
    }
}

/// Writes down who owns which fields.
pub(crate) fn manage_fields(scope: &Scope<'_>, old: Option<&Value>, new: &mut Value, part: Part<'_>) {
    let Some(schema) = scope.resource.schema().filter(|_| scope.ownership == Ownership::Writer) else {
        return;
    };
    let subresource = subresource_of(part);
    let (api_version, now) = (scope.resource.api_version(), now());
    let writer =
        apply::Writer { manager: scope.manager(), api_version: &api_version, subresource, now: &now };
    let reset = apply::reset_fields(scope.resource.has_status(), subresource);
    apply::update_managed_fields(schema, old, new, &writer, &reset);
}

/// The object after a server-side apply, with its managed fields.
pub(crate) fn applied(
    scope: &Scope<'_>,
    live: Option<&Value>,
    config: &Value,
    part: Part<'_>,
) -> ApiResult<Value> {
    let Some(schema) = scope.resource.schema() else { return Err(ApiError::unsupported_patch()) };
    let subresource = subresource_of(part);
    let (api_version, now) = (scope.resource.api_version(), now());
    let writer =
        apply::Writer { manager: scope.manager(), api_version: &api_version, subresource, now: &now };
    let reset = apply::reset_fields(scope.resource.has_status(), subresource);
    let force = scope.options.force.unwrap_or(false);
    apply::apply(schema, live, config, &writer, &reset, force).map_err(|error| match &error {
        apply::ApplyError::Conflicts(conflicts) => {
            let causes: Vec<Cause> = conflicts
                .iter()
                .map(|conflict| Cause {
                    reason: "FieldManagerConflict",
                    message: conflict.message(),
                    field: conflict.path.clone(),
                })
                .collect();
            ApiError::apply_conflict(error.to_string(), &causes)
        }
        apply::ApplyError::ManagedFieldsGiven => ApiError::bad_request(error.to_string()),
        apply::ApplyError::Malformed { .. } => ApiError::internal(error.to_string()),
    })
}

/// Takes back everything that a write to the subresource may not change.
pub(crate) fn restrict(resource: &Resource, subresource: &str, old: &Value, new: &mut Value) {
    let open: &[&str] = match subresource {
        // The binding's handler made the new state itself.
        "binding" => return,
        "ephemeralcontainers" => {
            let containers = at(new, &["spec", "ephemeralContainers"]).clone();
            *new = old.clone();
            set_at(new, &["spec", "ephemeralContainers"], (!containers.is_null()).then_some(containers));
            return;
        }
        "status" | "approval" if resource.custom.is_some() => &["status"],
        "status" | "approval" => &["status", "metadata"],
        _ => &["spec", "metadata"],
    };
    let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) else { return };
    new.retain(|name, _| open.contains(&name.as_str()) || old.contains_key(name));
    for (name, before) in old.iter().filter(|(name, _)| !open.contains(&name.as_str())) {
        // Most writes leave the rest alone, and to look is cheaper than to copy.
        if new.get(name) != Some(before) {
            new.insert(name.clone(), before.clone());
        }
    }
}

/// Whether an object that is being deleted stays even without finalizers in its metadata.
pub(crate) fn waits_for_more_than_finalizers(resource: &Resource, object: &Value) -> bool {
    resource.is("", "namespaces")
        && at(object, &["spec", "finalizers"]).as_array().is_some_and(|list| !list.is_empty())
}

/// The state of an object after a deletion was asked for, and whether it is gone with it.
pub(crate) fn mark_deleted(resource: &Resource, old: &Value, options: &DeleteOptions) -> (Value, bool) {
    let mut new = old.clone();
    let mut wanted: Vec<String> = finalizers(old).into_iter().map(str::to_owned).collect();
    if let Some(policy) = options.propagation.as_deref() {
        wanted.retain(|finalizer| finalizer != "foregroundDeletion" && finalizer != "orphan");
        match policy {
            "Foreground" => wanted.push("foregroundDeletion".into()),
            "Orphan" => wanted.push("orphan".into()),
            _ => {}
        }
    }
    if is_definition(resource) && !is_deleting(old) {
        wanted.push(custom::CLEANUP.into());
    }
    let held = !wanted.is_empty();
    set_at(&mut new, &["metadata", "finalizers"], held.then(|| json!(wanted)));
    if resource.is("", "namespaces") {
        let waits = held || waits_for_more_than_finalizers(resource, old);
        if waits && !is_deleting(old) {
            set_deletion(&mut new, 0);
            meta_mut(&mut new).remove("deletionGracePeriodSeconds");
            set_at(&mut new, &["status", "phase"], Some("Terminating".into()));
        }
        return (new, !waits);
    }
    if resource.is("", "pods") {
        let grace = pod_grace(old, options);
        let running = is_deleting(old)
            .then(|| at(old, &["metadata", "deletionGracePeriodSeconds"]).as_i64().unwrap_or(0));
        if running.is_none_or(|left| grace < left) {
            set_deletion(&mut new, grace);
        }
        let left = at(&new, &["metadata", "deletionGracePeriodSeconds"]).as_i64().unwrap_or(0);
        return (new, left == 0 && !held);
    }
    if held {
        if !is_deleting(old) {
            set_deletion(&mut new, 0);
        }
        return (new, false);
    }
    (new, true)
}

/// Seconds that a pod gets: none when no node runs it.
fn pod_grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let own = at(pod, &["spec", "terminationGracePeriodSeconds"]).as_i64().unwrap_or(30);
    // Less than nothing is asked for as "soon", which Kubernetes takes for a second.
    let asked = options.grace_period_seconds.map_or(own, |asked| if asked < 0 { 1 } else { asked }).max(0);
    if text(pod, &["spec", "nodeName"]).is_empty() || pod_finished(pod) { 0 } else { asked }
}

/// Resources whose deletion answers with the object instead of a `Status`.
pub(crate) fn answers_with_object(resource: &Resource) -> bool {
    let core = [
        "pods",
        "services",
        "persistentvolumes",
        "persistentvolumeclaims",
        "serviceaccounts",
        "resourcequotas",
        "podtemplates",
    ];
    (resource.group.is_empty() && core.contains(&resource.plural.as_str()))
        || (resource.group == "storage.k8s.io" && resource.custom.is_none())
}

/// Checks a decoded object against the kind's fields, removes what the kind does not have and gives numbers their one
/// form, so that the same value is the same in every encoding; returns warnings.
pub(crate) fn decode_value(
    resource: &Resource,
    object: &mut Value,
    duplicates: &[DuplicateField],
    validation: FieldValidation,
) -> ApiResult<Vec<String>> {
    let kind = &resource.kind;
    let refuse =
        |why: &str| Err(ApiError::bad_request(decode::cannot_be_handled(kind, &resource.version, kind, why)));
    decode::whole_numbers(object);
    let mut unknown = Vec::new();
    match (&resource.custom, resource.schema()) {
        (Some(custom), _) => unknown = custom.version.validator.prune(object),
        (None, Some(schema)) => {
            let checked = decode::check(schema, object);
            if let Some(first) = checked.type_errors.first() {
                return refuse(first);
            }
            unknown = checked.unknown;
            decode::prune(schema, object);
            if let Err(error) = admission::decode::check(&resource.api_version(), kind, object) {
                return refuse(&error.to_string());
            }
        }
        (None, None) => {}
    }
    let problems = decode::field_problems(duplicates, &unknown);
    match validation {
        FieldValidation::Strict => match decode::strict_error(&problems) {
            Some(error) => refuse(&error),
            None => Ok(Vec::new()),
        },
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Ignore => Ok(Vec::new()),
    }
}

fn patch_error(error: &patch::PatchError) -> ApiError {
    match error.code() {
        400 => ApiError::bad_request(error.to_string()),
        422 => ApiError::unprocessable_patch(),
        code => ApiError { code, reason: error.reason(), ..ApiError::bad_request(error.to_string()) },
    }
}

/// Applies a JSON patch.
pub(crate) fn json_patch(object: &mut Value, text: &[u8]) -> ApiResult<()> {
    patch::apply_json_patch(object, text).map_err(|error| patch_error(&error))
}

/// Applies a JSON merge patch.
pub(crate) fn merge_patch(object: &mut Value, text: &[u8]) -> ApiResult<()> {
    patch::apply_merge_patch(object, text).map_err(|error| patch_error(&error))
}

/// Applies a strategic merge patch.
pub(crate) fn strategic_patch(resource: &Resource, object: &mut Value, text: &Value) -> ApiResult<()> {
    let Some(schema) = resource.schema() else { return Err(ApiError::unsupported_patch()) };
    apply_strategic_patch(schema, object, text).map_err(|error| match error.code() {
        400 => ApiError::bad_request(error.to_string()),
        422 => ApiError::invalid(
            About { group: "", what: "", name: "" },
            &[Cause::invalid("patch", "{}", error)],
        ),
        _ => ApiError::internal(error.to_string()),
    })
}
