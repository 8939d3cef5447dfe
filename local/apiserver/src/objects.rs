//! The life of an object in the store: creation, change, deletion. Every write of the server comes through here.

use std::sync::Arc;

use muster_store::{Entry, Error as StoreError, ObjectKey};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::custom;
use crate::meta::{
    at, finalizers, format_time, generated_name, generation, is_deleting, meta, meta_mut, new_uid, now,
    set_at, text,
};
use crate::plugins;
use crate::registry::Resource;
use crate::request::WriteOptions;
use crate::rules;
use crate::status::{About, ApiError, ApiResult, Cause};

/// How often a write without a version precondition is tried again when somebody else was faster.
const WRITE_ATTEMPTS: usize = 16;
/// How often a generated name is drawn anew when it is taken.
const NAME_ATTEMPTS: usize = 8;

/// What a write leaves behind.
#[derive(Debug, Clone)]
pub(crate) enum Written {
    /// This is stored now (or was, before a deletion).
    Stored(Arc<Entry>),
    /// This would be stored, or was the last state; without `kind` and `apiVersion`.
    Shown(Value),
}

impl Written {
    /// The object without `kind` and `apiVersion`.
    pub(crate) fn object(&self) -> Arc<Value> {
        match self {
            Self::Stored(entry) => entry.object(),
            Self::Shown(value) => Arc::new(value.clone()),
        }
    }
}

/// Which part of the object a change may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Everything but the status.
    Main,
    /// The status (or the fields that the named subresource owns).
    Subresource(&'a str),
}

/// Who comes to own the fields that a write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The writer.
    Writer,
    /// Whoever the object's managed fields name: the write is a server-side apply.
    Given,
}

/// Who writes, and where.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    /// The server.
    pub app: &'a Arc<App>,
    /// The resource written to.
    pub resource: &'a Resource,
    /// Namespace, empty for objects of the cluster.
    pub namespace: &'a str,
    /// How.
    pub options: &'a WriteOptions,
    /// Field manager when the options name none.
    pub default_manager: &'a str,
    /// Whether this write takes ownership of what it changes, or the object says already who owns what.
    pub ownership: Ownership,
}

/// Puts `kind` and `apiVersion` onto a stored object, in the form of the resource's version.
pub(crate) fn with_type(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    rules::to_view(resource, &mut object);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("kind".into(), resource.kind.clone().into());
        fields.insert("apiVersion".into(), resource.api_version().into());
    }
    object
}

/// Takes `kind` and `apiVersion` off, into the stored form.
fn to_stored(resource: &Resource, mut object: Value) -> Value {
    rules::to_stored(resource, &mut object);
    object
}

/// Options of a deletion.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    /// Seconds that the object may take to end.
    pub grace_period_seconds: Option<i64>,
    /// `Foreground`, `Background` or `Orphan`.
    pub propagation: Option<String>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this revision.
    pub resource_version: Option<String>,
}

impl Scope<'_> {
    fn about<'n>(&'n self, name: &'n str) -> About<'n> {
        About { group: &self.resource.group, what: &self.resource.plural, name }
    }

    fn about_kind<'n>(&'n self, name: &'n str) -> About<'n> {
        About { group: &self.resource.group, what: &self.resource.kind, name }
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.resource.storage_key.clone(), self.namespace, name)
    }

    /// The manager that owns what this request writes.
    pub(crate) fn manager(&self) -> &str {
        self.options.field_manager.as_deref().unwrap_or(self.default_manager)
    }

    /// The stored object, or 404.
    pub(crate) fn current(&self, name: &str) -> ApiResult<Arc<Entry>> {
        self.app.store.get(&self.key(name)).ok_or_else(|| ApiError::not_found(self.about(name)))
    }

    fn check_namespace(&self, object: &mut Value) -> ApiResult<()> {
        let given = meta(object, "namespace").to_owned();
        if !given.is_empty() && given != self.namespace {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(ApiError::bad_request(why));
        }
        let fields = meta_mut(object);
        if self.resource.namespaced {
            fields.insert("namespace".into(), self.namespace.into());
        } else {
            fields.remove("namespace");
        }
        Ok(())
    }

    /// Creates an object from a decoded body that carries its type.
    pub(crate) async fn create(&mut self, mut object: Value) -> ApiResult<Written> {
        self.check_namespace(&mut object)?;
        if !meta(&object, "resourceVersion").is_empty() {
            return Err(ApiError::internal("resourceVersion should not be set on objects to be created"));
        }
        let base = meta(&object, "generateName").to_owned();
        let generated = meta(&object, "name").is_empty() && !base.is_empty();
        if generated {
            meta_mut(&mut object).insert("name".into(), generated_name(&base).into());
        }
        let fields = meta_mut(&mut object);
        for own in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            fields.remove(own);
        }
        fields.insert("uid".into(), new_uid().into());
        fields.insert("creationTimestamp".into(), now().into());
        drop_empty(fields);
        plugins::namespace::check_create(self, &object)?;
        if self.resource.has_status() && !rules::keeps_status_on_create(self.resource) {
            set_at(&mut object, &["status"], None);
        }
        custom::check_alive(self.app, self.resource, meta(&object, "name"))?;
        rules::default_object(self.resource, &mut object);
        // Nobody owns what the server adds from here on.
        rules::manage_fields(self, None, &mut object, Part::Main);
        rules::prepare_create(self.resource, &mut object);
        plugins::mutate_create(self, &mut object)?;
        let name = meta(&object, "name").to_owned();
        let errors = rules::validate_create(self.resource, &object);
        if !errors.is_empty() {
            return Err(ApiError::invalid(self.about_kind(&name), &errors));
        }
        let quota = plugins::quota::admit(self, None, &object).await?;
        let stored = to_stored(self.resource, object);
        if self.options.dry_run {
            if self.app.store.get(&self.key(&name)).is_some() {
                return Err(ApiError::already_exists(self.about(&name)));
            }
            return Ok(Written::Shown(stored));
        }
        let written = self.store_new(name, stored, generated.then_some(base.as_str())).await;
        quota.settle(self.app, written.is_ok()).await;
        written.map(Written::Stored)
    }

    async fn store_new(
        &self,
        mut name: String,
        mut stored: Value,
        base: Option<&str>,
    ) -> ApiResult<Arc<Entry>> {
        for _ in 0..NAME_ATTEMPTS {
            let attempt = if base.is_some() { stored.clone() } else { std::mem::take(&mut stored) };
            match self.app.store.create(self.key(&name), attempt).await {
                Err(StoreError::AlreadyExists { .. }) => match base {
                    Some(base) => {
                        name = generated_name(base);
                        meta_mut(&mut stored).insert("name".into(), name.clone().into());
                    }
                    None => return Err(ApiError::already_exists(self.about(&name))),
                },
                other => return other.map_err(|error| storage_error(&error)),
            }
        }
        Err(ApiError::already_exists(self.about(&name)))
    }

    /// Changes an object. `change` gets the present object with its type and returns the wanted one; it may be
    /// called several times when others write in between.
    pub(crate) async fn modify(
        &mut self,
        name: &str,
        part: Part<'_>,
        change: &mut (dyn FnMut(&Value) -> ApiResult<Value> + Send),
    ) -> ApiResult<Written> {
        for _ in 0..WRITE_ATTEMPTS {
            let entry = self.current(name)?;
            let old = with_type(self.resource, &entry.object());
            let wanted = change(&old)?;
            let (new, pinned) = self.reconcile(name, part, &entry, &old, wanted)?;
            if same_object(&old, &new) {
                return Ok(Written::Stored(entry));
            }
            let finished = is_deleting(&new)
                && finalizers(&new).is_empty()
                && at(&new, &["metadata", "deletionGracePeriodSeconds"]).as_i64().unwrap_or(0) == 0
                && !rules::waits_for_more_than_finalizers(self.resource, &new);
            let quota = plugins::quota::admit(self, Some(&old), &new).await?;
            let stored = to_stored(self.resource, new);
            if self.options.dry_run {
                return Ok(Written::Shown(stored));
            }
            let key = self.key(name);
            let revision = entry.revision();
            let written = if finished {
                let shown = stored.clone();
                let done = self.app.store.delete(key, revision, Some(stored)).await;
                if done.is_ok() {
                    // Whatever it used, the change just charged included.
                    plugins::quota::release(self.app, self.resource, &shown).await;
                }
                done.map(|_| Written::Shown(shown))
            } else {
                self.app.store.update(key, revision, stored).await.map(Written::Stored)
            };
            quota.settle(self.app, written.is_ok()).await;
            match written {
                Ok(written) => return Ok(written),
                Err(StoreError::Conflict { .. }) if pinned => {
                    return Err(ApiError::modified(self.about(name)));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(ApiError::not_found(self.about(name))),
                Err(error) => return Err(storage_error(&error)),
            }
        }
        Err(ApiError::modified(self.about(name)))
    }

    /// Merges what the client wants with what it may not touch. Also says whether the client insists on the
    /// version it has seen.
    fn reconcile(
        &mut self,
        name: &str,
        part: Part<'_>,
        entry: &Entry,
        old: &Value,
        wanted: Value,
    ) -> ApiResult<(Value, bool)> {
        let mut new = wanted;
        let given = meta(&new, "name");
        if given != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        self.check_namespace(&mut new)?;
        let uid = meta(old, "uid").to_owned();
        let given_uid = meta(&new, "uid");
        if !given_uid.is_empty() && given_uid != uid {
            let path = self.resource.storage_key.trim_start_matches("core/");
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{path}/{}/{name}, ResourceVersion: 0, \
                 AdditionalErrorMsg: Precondition failed: UID in precondition: {given_uid}, UID in object meta: {uid}",
                self.namespace
            );
            return Err(ApiError::conflict(self.about(name), why.replace("//", "/")));
        }
        let given_version = meta(&new, "resourceVersion").to_owned();
        let pinned = !given_version.is_empty() && given_version != "0";
        if pinned && given_version != entry.revision().to_string() {
            return Err(ApiError::modified(self.about(name)));
        }
        keep_metadata(&mut new, old);
        rules::default_object(self.resource, &mut new);
        plugins::mutate_update(self, old, &mut new, part);
        rules::prepare_update(self.resource, old, &mut new, part);
        let mut errors = rules::validate_update(self.resource, old, &new, part);
        check_finalizers(old, &new, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid(self.about_kind(name), &errors));
        }
        drop_empty(meta_mut(&mut new));
        rules::manage_fields(self, Some(old), &mut new, part);
        Ok((new, pinned))
    }

    /// Deletes an object or marks it for deletion. Returns its last or new state and whether it is gone.
    pub(crate) async fn delete(&mut self, name: &str, options: &DeleteOptions) -> ApiResult<(Written, bool)> {
        for _ in 0..WRITE_ATTEMPTS {
            let entry = self.current(name)?;
            let old = with_type(self.resource, &entry.object());
            self.check_preconditions(name, &old, options)?;
            plugins::namespace::check_delete(self, name)?;
            let (new, gone) = rules::mark_deleted(self.resource, &old, options);
            if !gone && new == old {
                return Ok((Written::Stored(entry), false));
            }
            let stored = to_stored(self.resource, new);
            if self.options.dry_run {
                return Ok((Written::Shown(stored), gone));
            }
            let key = self.key(name);
            let written = if gone {
                self.app.store.delete(key, entry.revision(), Some(stored)).await
            } else {
                self.app.store.update(key, entry.revision(), stored).await
            };
            match written {
                Ok(written) => {
                    if gone {
                        plugins::quota::release(self.app, self.resource, &old).await;
                    }
                    return Ok((Written::Stored(written), gone));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(ApiError::not_found(self.about(name))),
                Err(error) => return Err(storage_error(&error)),
            }
        }
        Err(ApiError::modified(self.about(name)))
    }

    fn check_preconditions(&self, name: &str, object: &Value, options: &DeleteOptions) -> ApiResult<()> {
        let kind = About { group: "", ..self.about_kind(name) };
        let uid = meta(object, "uid");
        if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
            return Err(ApiError::conflict(
                kind,
                format!(
                    "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might \
                     have been deleted and then recreated"
                ),
            ));
        }
        let version = meta(object, "resourceVersion");
        if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
            return Err(ApiError::conflict(
                kind,
                format!(
                    "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
                     ({version}). The object might have been modified"
                ),
            ));
        }
        Ok(())
    }
}

/// Fields of the metadata that no client changes once they are set.
fn keep_metadata(new: &mut Value, old: &Value) {
    let old_meta = at(old, &["metadata"]);
    let fields = meta_mut(new);
    let kept = [
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "generateName",
    ];
    for field in kept {
        match old_meta.get(field) {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.remove(field),
        };
    }
    fields.remove("selfLink");
}

/// Removes what Kubernetes leaves out when it is empty.
fn drop_empty(fields: &mut Map<String, Value>) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let droppable = ["labels", "annotations", "finalizers", "ownerReferences", "generateName"];
    fields.retain(|key, value| !(droppable.contains(&key.as_str()) && empty(value)));
}

fn check_finalizers(old: &Value, new: &Value, errors: &mut Vec<Cause>) {
    if !is_deleting(old) {
        return;
    }
    let before = finalizers(old);
    let added: Vec<String> = finalizers(new)
        .into_iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(|finalizer| format!("\"{finalizer}\""))
        .collect();
    if !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        errors.push(Cause::forbidden("metadata.finalizers", why));
    }
}

/// Whether two states differ only in the times of managed fields.
fn same_object<'a>(old: &'a Value, new: &'a Value) -> bool {
    let (Some(old_fields), Some(new_fields)) = (old.as_object(), new.as_object()) else { return false };
    let differs = |key: &str| old_fields.get(key) != new_fields.get(key);
    if old_fields.keys().chain(new_fields.keys()).any(|key| key != "metadata" && differs(key)) {
        return false;
    }
    let (Some(old_meta), Some(new_meta)) = (old["metadata"].as_object(), new["metadata"].as_object()) else {
        return false;
    };
    let differs = |key: &str| old_meta.get(key) != new_meta.get(key);
    if old_meta.keys().chain(new_meta.keys()).any(|key| key != "managedFields" && differs(key)) {
        return false;
    }
    let managers =
        |fields: Option<&'a Value>| fields.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let (old_managers, new_managers) =
        (managers(old_meta.get("managedFields")), managers(new_meta.get("managedFields")));
    old_managers.len() == new_managers.len()
        && old_managers.iter().zip(new_managers).all(|(old, new)| same_but_time(old, new))
}

/// Whether two entries of managed fields differ at most in their time.
fn same_but_time(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    let timeless = |(key, _): &(&String, &Value)| *key != "time";
    old.iter().filter(timeless).eq(new.iter().filter(timeless))
}

/// The deletion mark, `grace` seconds from now.
pub(crate) fn set_deletion(object: &mut Value, grace: i64) {
    let first = !is_deleting(object);
    let bumped = generation(object) + 1;
    let time = jiff::Timestamp::now()
        .checked_add(jiff::SignedDuration::from_secs(grace))
        .unwrap_or_else(|_| jiff::Timestamp::now());
    let fields = meta_mut(object);
    fields.insert("deletionTimestamp".into(), format_time(time).into());
    fields.insert("deletionGracePeriodSeconds".into(), grace.into());
    if first && bumped > 1 {
        fields.insert("generation".into(), bumped.into());
    }
}

/// What the client learns of a failing store.
pub(crate) fn storage_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Expired { .. } => {
            ApiError::expired("The resourceVersion for the provided watch is too old.")
        }
        // Kubernetes passes on etcd's words, which clients look for.
        StoreError::TooLarge { .. } => ApiError::internal("etcdserver: request is too large"),
        StoreError::Closed => ApiError::unavailable("the server is shutting down"),
        StoreError::Log(log) if log.is_full() => ApiError::insufficient_storage(format!(
            "nothing was written: {log}; free some space, no restart is needed"
        )),
        other => ApiError::internal_error(other),
    }
}

/// `details` of the answer to a deletion.
pub(crate) fn deletion_details(resource: &Resource, object: &Value) -> Value {
    let mut details =
        json!({ "name": meta(object, "name"), "kind": resource.plural, "uid": meta(object, "uid") });
    if let (Some(fields), false) = (details.as_object_mut(), resource.group.is_empty()) {
        fields.insert("group".into(), resource.group.clone().into());
    }
    details
}

/// The pod's phase ended.
pub(crate) fn pod_finished(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}
