//! Resource quotas: every write is charged before it happens, and paid back when it does not.

use std::sync::Arc;

use muster_admission::quantity::Quantity;
use muster_admission::quota::{Usage, charge, usage};
use muster_store::{Entry, ObjectKey, Query};
use serde_json::{Value, json};

use crate::app::App;
use crate::meta::{at, meta, set_at};
use crate::objects::{Scope, storage_error, with_type};
use crate::registry::Resource;
use crate::status::{About, ApiError, ApiResult};

const QUOTAS: &str = "core/resourcequotas";

/// What a write has taken from the quotas of its namespace.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Charge {
    namespace: String,
    taken: Usage,
}

impl Charge {
    /// Gives the charge back when the write failed.
    pub(crate) async fn settle(self, app: &App, written: bool) {
        if !written && !self.taken.is_empty() {
            let returned = negative(self.taken);
            if let Err(error) = apply(app, &self.namespace, &returned, None).await {
                tracing::debug!(%error, "a quota could not be paid back");
            }
        }
    }
}

fn negative(usage: Usage) -> Usage {
    usage.into_iter().map(|(name, amount)| (name, Quantity::ZERO.minus(amount))).collect()
}

fn quotas(app: &App, namespace: &str) -> Vec<Arc<Entry>> {
    app.store.list(&Query::new(QUOTAS).namespace(Some(namespace))).entries
}

/// Charges a write, or refuses it when a quota has no room.
pub(crate) async fn admit(scope: &Scope<'_>, old: Option<&Value>, new: &Value) -> ApiResult<Charge> {
    let resource = scope.resource;
    if !resource.namespaced || scope.options.dry_run || resource.is("", "resourcequotas") {
        return Ok(Charge::default());
    }
    if quotas(scope.app, scope.namespace).is_empty() {
        return Ok(Charge::default());
    }
    let measure = |object: &Value| usage(&resource.api_version(), &resource.kind, &resource.plural, object);
    let mut more = measure(new);
    for (name, amount) in old.map(measure).unwrap_or_default() {
        let entry = more.entry(name).or_insert(Quantity::ZERO);
        *entry = entry.minus(amount);
    }
    more.retain(|_, amount| !amount.is_zero());
    if more.is_empty() {
        return Ok(Charge::default());
    }
    let about = About { group: &resource.group, what: &resource.plural, name: meta(new, "name") };
    apply(scope.app, scope.namespace, &more, Some(about)).await?;
    Ok(Charge { namespace: scope.namespace.to_owned(), taken: more })
}

/// Gives back what an object that is gone had taken.
pub(crate) async fn release(app: &App, resource: &Resource, object: &Value) {
    let namespace = meta(object, "namespace");
    if namespace.is_empty() || quotas(app, namespace).is_empty() {
        return;
    }
    let freed = negative(usage(&resource.api_version(), &resource.kind, &resource.plural, object));
    if let Err(error) = apply(app, namespace, &freed, None).await {
        tracing::debug!(%error, "a quota could not be paid back");
    }
}

/// Adds usage to every quota of the namespace; with `about`, a quota without room refuses.
async fn apply(app: &App, namespace: &str, more: &Usage, about: Option<About<'_>>) -> ApiResult<()> {
    // Charges are made one at a time, so that two writes cannot both take the last place.
    let _turn = app.quotas.lock().await;
    let mut changes = Vec::new();
    for entry in quotas(app, namespace) {
        let mut quota = (*entry.object()).clone();
        if at(&quota, &["status", "hard"]) != at(&quota, &["spec", "hard"]) {
            count(app, namespace, &mut quota);
        }
        match (charge(&quota, more), about) {
            (Ok(Some(used)), _) => {
                set_at(&mut quota, &["status", "used"], Some(used));
                changes.push((entry.key().clone(), entry.revision(), quota));
            }
            (Ok(None), _) | (Err(_), None) => {}
            (Err(refusal), Some(about)) => return Err(ApiError::forbidden(about, refusal)),
        }
    }
    for (key, revision, quota) in changes {
        write(app, key, revision, quota).await?;
    }
    Ok(())
}

async fn write(app: &App, key: ObjectKey, revision: u64, quota: Value) -> ApiResult<()> {
    match app.store.update(key, revision, quota).await {
        // The quota itself was changed or deleted meanwhile: the next write counts anew.
        Ok(_) | Err(muster_store::Error::Conflict { .. } | muster_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(storage_error(&error)),
    }
}

/// Counts what the namespace uses of a quota whose limits are new.
fn count(app: &App, namespace: &str, quota: &mut Value) {
    let hard = at(quota, &["spec", "hard"]).clone();
    let mut used = Usage::new();
    for resource in app.registry.snapshot().stored().filter(|resource| resource.namespaced) {
        for entry in app.store.list(&Query::new(&resource.storage_key).namespace(Some(namespace))).entries {
            let object = with_type(resource, &entry.object());
            for (name, amount) in usage(&resource.api_version(), &resource.kind, &resource.plural, &object) {
                let entry = used.entry(name).or_insert(Quantity::ZERO);
                *entry = entry.plus(amount);
            }
        }
    }
    let limited = hard.as_object().into_iter().flatten().map(|(name, _)| {
        let amount = used.get(name).copied().unwrap_or(Quantity::ZERO);
        (name.clone(), Value::from(amount.to_string()))
    });
    let used: serde_json::Map<String, Value> = limited.collect();
    set_at(quota, &["status"], Some(json!({ "hard": hard, "used": used })));
}
