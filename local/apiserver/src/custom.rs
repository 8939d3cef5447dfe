//! Custom resources: from definitions to resources that are served.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_admission::printing::CustomColumns;
use muster_schema::structural::{self, CustomResource, NamesInUse, Scope as ResourceScope, Version};
use muster_store::{ObjectKey, Query};
use serde_json::{Value, json};

use crate::app::App;
use crate::definitions::{DEFINITIONS, Definition};
use crate::meta::{at, finalizers, meta_mut, now, set_at};
use crate::objects::{DeleteOptions, Ownership, Part, Scope};
use crate::registry::{Resource, Subresource};
use crate::request::WriteOptions;
use crate::status::{About, ApiError, ApiResult, Cause};

/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// One served version of a custom resource.
#[derive(Debug)]
pub(crate) struct CustomVersion {
    /// Schema, subresources, selectable fields.
    pub(crate) version: Version,
    /// What tables show.
    pub(crate) columns: Option<CustomColumns>,
    /// Paths of fields that lists can be selected by, without the leading dot.
    pub(crate) selectable_fields: Vec<String>,
}

/// Causes in the words of the schema crate.
pub(crate) fn causes(errors: &[muster_schema::field::FieldError]) -> Vec<Cause> {
    let cause = |error: &muster_schema::field::FieldError| Cause {
        reason: error.kind.reason(),
        message: error.message(),
        field: error.path.clone(),
    };
    errors.iter().map(cause).collect()
}

/// What is wrong with the change of a definition, beyond the definition itself.
pub(crate) fn check_definition_update(old: &Value, new: &Value) -> Vec<Cause> {
    causes(&structural::definition_update_errors(old, new))
}

/// What is wrong with a definition.
pub(crate) fn check_definition(definition: &Value) -> Vec<Cause> {
    CustomResource::parse(definition).err().map(|errors| causes(&errors)).unwrap_or_default()
}

/// Gives a new definition the status that follows from its spec alone.
pub(crate) fn prepare_definition(definition: &mut Value) {
    let versions = at(definition, &["spec", "versions"]).as_array().into_iter().flatten();
    let stored: Vec<Value> = versions
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let names = json!({ "kind": "", "plural": "" });
    let status = json!({ "acceptedNames": names, "conditions": null, "storedVersions": stored });
    set_at(definition, &["status"], Some(status));
}

/// A version that objects are stored in from now on joins those that they may be stored in.
pub(crate) fn prepare_definition_update(definition: &mut Value) {
    let versions = at(definition, &["spec", "versions"]).as_array().into_iter().flatten();
    let storage = versions.filter(|version| version["storage"] == true).map(|version| &version["name"]);
    let mut stored = at(definition, &["status", "storedVersions"]).as_array().cloned().unwrap_or_default();
    let new: Vec<Value> = storage.filter(|name| !stored.contains(name)).cloned().collect();
    if !new.is_empty() {
        stored.extend(new);
        set_at(definition, &["status", "storedVersions"], Some(stored.into()));
    }
}

/// The resource of one version of a definition.
pub(crate) fn resource(custom: &CustomResource, version: &Version) -> Resource {
    let verbs = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    let change = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    let mut subresources = Vec::new();
    if version.subresources.status {
        subresources.push(Subresource { name: "status".into(), kind: None, verbs: change() });
    }
    if version.subresources.scale.is_some() {
        let kind = Some(("autoscaling".into(), "v1".into(), "Scale".into()));
        subresources.push(Subresource { name: "scale".into(), kind, verbs: change() });
    }
    let columns: Vec<Value> = version
        .printer_columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority, "jsonPath": column.json_path,
            })
        })
        .collect();
    let selectable = version.selectable_fields.iter().map(|path| path.trim_start_matches('.').to_owned());
    Resource {
        group: custom.group.clone(),
        version: version.name.clone(),
        plural: custom.plural.clone(),
        singular: custom.singular.clone(),
        kind: custom.kind.clone(),
        list_kind: custom.list_kind.clone(),
        namespaced: custom.scope == ResourceScope::Namespaced,
        short_names: custom.short_names.clone(),
        categories: custom.categories.clone(),
        verbs: verbs.map(str::to_owned).to_vec(),
        subresources,
        storage_key: format!("{}/{}", custom.group, custom.plural).into(),
        custom: Some(Arc::new(CustomVersion {
            columns: CustomColumns::compile(&columns).ok(),
            selectable_fields: selectable.collect(),
            version: version.clone(),
        })),
        schema: OnceLock::new(),
    }
}

/// Makes the registry follow the definitions, and their status follow the registry; definitions that are being
/// deleted are emptied, also those that an earlier process did not come to the end of.
pub(crate) async fn refresh(app: &Arc<App>) -> ApiResult<()> {
    // One at a time: two definitions written at once must not take each other's names.
    let mut definitions = app.definitions.lock().await;
    let mut taken: BTreeMap<String, NamesInUse> = BTreeMap::new();
    let mut served = Vec::new();
    for Definition { custom, resources, status: old, is_deleting, .. } in definitions.all(app) {
        let names = taken.entry(custom.group.clone()).or_default();
        let [accepted, established] = structural::conditions(&custom, names);
        if established.holds {
            let own = [&custom.plural, &custom.singular].into_iter().chain(&custom.short_names);
            names.resources.extend(own.cloned());
            names.kinds.extend([custom.kind.clone(), custom.list_kind.clone()]);
            served.extend(resources.iter().cloned());
        }
        let status = json!({
            "conditions": [accepted.to_value(&now()), established.to_value(&now())],
            "acceptedNames": if accepted.holds { structural::accepted_names(&custom) } else { old["acceptedNames"].clone() },
            "storedVersions": stored_versions(&old, &custom),
        });
        if !same_status(&old, &status) {
            establish(app, &custom.name(), status).await?;
        }
        if is_deleting && app.ending.lock().insert(custom.name()) {
            tokio::spawn(clean_up(app.clone(), custom));
        }
    }
    app.registry.set_custom(&served);
    Ok(())
}

fn stored_versions(status: &Value, custom: &CustomResource) -> Value {
    let mut stored: Vec<Value> = status["storedVersions"].as_array().cloned().unwrap_or_default();
    if let Some(version) = custom.storage_version() {
        let name = Value::from(version.name.as_str());
        if !stored.contains(&name) {
            stored.push(name);
        }
    }
    stored.into()
}

/// Whether two states of a definition differ in more than the times of conditions.
fn same_status(old: &Value, new: &Value) -> bool {
    let key = |status: &Value| -> Vec<Value> {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let known = conditions
            .filter(|condition| condition["type"] == "NamesAccepted" || condition["type"] == "Established");
        let mut parts: Vec<Value> = known
            .map(|condition| {
                json!([condition["type"], condition["status"], condition["reason"], condition["message"]])
            })
            .collect();
        parts.sort_by_key(ToString::to_string);
        parts.extend([status["acceptedNames"].clone(), status["storedVersions"].clone()]);
        parts
    };
    key(old) == key(new)
}

async fn establish(app: &Arc<App>, name: &str, status: Value) -> ApiResult<()> {
    let Some(definitions) =
        app.registry.snapshot().find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    else {
        return Ok(());
    };
    let options = WriteOptions::default();
    let mut scope = Scope {
        app,
        resource: &definitions,
        namespace: "",
        options: &options,
        default_manager: "kube-apiserver",
        ownership: Ownership::Writer,
    };
    let change = &mut |current: &Value| {
        let mut new = current.clone();
        meta_mut(&mut new).remove("resourceVersion");
        set_at(&mut new, &["status"], Some(status.clone()));
        Ok(new)
    };
    let written = scope.modify(name, Part::Subresource("status"), change).await;
    match written {
        Err(error) if error.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Starts to empty a definition that is being deleted. Boxed, since `refresh` calls it and is called by it.
fn clean_up(app: Arc<App>, custom: Arc<CustomResource>) -> BoxFuture<'static, ()> {
    emptied(app, custom).boxed()
}

/// Deletes the objects of a definition, then lets it go.
async fn emptied(app: Arc<App>, custom: Arc<CustomResource>) {
    let name = custom.name();
    let key: Arc<str> = format!("{}/{}", custom.group, custom.plural).into();
    let mut pause = std::time::Duration::from_millis(5);
    loop {
        if let Err(error) = delete_all(&app, &custom, &key).await {
            tracing::debug!(definition = name, %error, "cannot delete custom objects yet");
        }
        if app.store.list(&Query::new(&key).limit(Some(1))).entries.is_empty() {
            break;
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(std::time::Duration::from_secs(1)),
        }
    }
    let released = release(&app, &name).await;
    // From here on a definition of the same name is another one.
    app.ending.lock().remove(&name);
    let refreshed = match released {
        Ok(()) => refresh(&app).await,
        refused => refused,
    };
    if let Err(error) = refreshed {
        tracing::debug!(definition = name, %error, "cannot release the definition");
    }
}

async fn delete_all(app: &Arc<App>, custom: &CustomResource, key: &str) -> ApiResult<()> {
    // Objects also go when no version is served any more.
    let Some(version) = custom.storage_version() else { return Err(ApiError::no_such_resource()) };
    let resource = resource(custom, version);
    let options = WriteOptions::default();
    for entry in app.store.list(&Query::new(key)).entries {
        let mut scope = Scope {
            app,
            resource: &resource,
            namespace: &entry.key().namespace,
            options: &options,
            default_manager: "kube-apiserver",
            ownership: Ownership::Writer,
        };
        match scope.delete(&entry.key().name, &DeleteOptions::default()).await {
            Err(error) if error.code != 404 => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn release(app: &Arc<App>, name: &str) -> ApiResult<()> {
    let key = ObjectKey::new(DEFINITIONS, "", name);
    for _ in 0..16 {
        let Some(entry) = app.store.get(&key) else { break };
        let mut object = (*entry.object()).clone();
        let rest: Vec<String> = finalizers(&object)
            .into_iter()
            .filter(|finalizer| *finalizer != CLEANUP)
            .map(str::to_owned)
            .collect();
        set_at(&mut object, &["metadata", "finalizers"], (!rest.is_empty()).then(|| json!(rest)));
        let written = if rest.is_empty() {
            app.store.delete(key.clone(), entry.revision(), Some(object)).await
        } else {
            app.store.update(key.clone(), entry.revision(), object).await
        };
        match written {
            Ok(_) => break,
            Err(muster_store::Error::Conflict { .. }) => {}
            Err(error) => return Err(crate::objects::storage_error(&error)),
        }
    }
    Ok(())
}

/// Refuses writes of objects whose definition is going away.
pub(crate) fn check_alive(app: &App, resource: &Resource, name: &str) -> ApiResult<()> {
    if resource.custom.is_none() {
        return Ok(());
    }
    if app.ending.lock().contains(&format!("{}.{}", resource.plural, resource.group)) {
        let about = About { group: &resource.group, what: &resource.plural, name };
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError { code: 405, reason: "MethodNotAllowed", ..ApiError::forbidden(about, why) });
    }
    Ok(())
}
