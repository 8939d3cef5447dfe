//! Custom resources: their definitions, and validation, pruning and defaulting of their objects.

use std::sync::Arc;

use serde_json::Value;

pub(crate) mod correlate;
mod default;
mod definition;
pub(crate) mod format;
mod lists;
mod metadata;
mod prune;
mod scale;
mod schema;
mod share;
mod status;
mod update;
mod validate;

pub use definition::{
    CustomResource, NamesInUse, PrinterColumn, ScalePaths, Scope, Subresources, Version,
    apply_definition_defaults,
};
pub use status::{Condition, accepted_names, conditions, initial_status};
pub use update::definition_update_errors;

use crate::cel::Rules;
use crate::field::FieldError;
use crate::model::Schema;

/// A custom resource's schema made ready for use: rules are compiled once.
#[derive(Debug)]
pub struct Validator {
    schema: Arc<Schema>,
    rules: Rules,
    scale: Option<ScalePaths>,
}

impl Validator {
    fn new(schema: Arc<Schema>, rules: Rules, scale: Option<ScalePaths>) -> Self {
        Self { schema, rules, scale }
    }

    /// The schema as server-side apply and OpenAPI use it.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Removes fields the schema does not know from a whole object and returns their paths
    /// (`spec.parts[0].nosuch`), for `unknown field "..."` warnings and errors.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut removed = metadata::prune(&self.schema, object);
        removed.extend(prune::prune(&self.schema, object));
        removed.sort();
        removed
    }

    /// Fills in defaults and drops nulls that the schema does not allow.
    pub fn default(&self, object: &mut Value) {
        default::apply(&self.schema, object);
    }

    /// Checks a new object, in Kubernetes' order: schema, scale paths, embedded resources, list kinds, rules.
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        self.validate(object, None)
    }

    /// Checks a changed object. What has not changed since `old` is not held against it.
    pub fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        self.validate(object, Some(old))
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::validate(&self.schema, object, old);
        if let Some(scale) = &self.scale {
            scale::validate(scale, object, &mut errors);
        }
        metadata::validate(&self.schema, object, &mut errors);
        lists::validate(&self.schema, object, old, "", &mut errors);
        if self.rules.is_empty() {
            return errors;
        }
        if errors.iter().any(FieldError::blocks_rules) {
            let detail = "some validation rules were not checked because the object was invalid; \
                          correct the existing errors to complete validation";
            errors.push(FieldError::invalid("", Value::Null, detail));
        } else {
            errors.extend(self.rules.validate(&self.schema, object, old));
        }
        errors
    }
}

#[cfg(test)]
pub(crate) mod shared_tests;
#[cfg(test)]
mod tests;
