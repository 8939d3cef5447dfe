//! `x-kubernetes-validations`: the CEL rules of custom resources, compiled once per schema; and expressions over
//! variables of one's own ([`Expression`]).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::field::{self, ErrorKind, FieldError};
use crate::model::{Rule, Schema};
use crate::structural::correlate::old_item;

mod convert;
mod expression;
mod functions;
mod network;
mod program;
mod quantity;
mod semver;

pub use expression::{Expression, ExpressionError, Variable};
use program::{Program, Verdict};

/// Evaluating all rules of one object may take this many steps, as estimated from the sizes of its lists.
const OBJECT_BUDGET: u64 = 10_000_000;

/// The compiled rules of a schema.
#[derive(Debug, Default)]
pub struct Rules {
    root: Node,
}

/// Rules at one place of a schema and below it.
#[derive(Debug, Default)]
struct Node {
    rules: Vec<CompiledRule>,
    properties: BTreeMap<String, Node>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
}

#[derive(Debug)]
struct CompiledRule {
    source: Rule,
    kind: ErrorKind,
    program: Program,
    message: Option<Program>,
}

impl Rules {
    /// Compiles all rules of `schema`, which stands at `path` of the definition.
    ///
    /// # Errors
    /// One error per rule that does not compile.
    pub fn compile(schema: &Schema, path: &str) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let root = Node::compile(schema, path, &mut errors);
        if errors.is_empty() { Ok(Self { root: root.unwrap_or_default() }) } else { Err(errors) }
    }

    /// Whether the schema has no rules.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Evaluates the rules for `value`, and transition rules where an old value is known.
    pub fn validate(&self, schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut run = Run { errors: Vec::new(), budget: OBJECT_BUDGET };
        run.node(&self.root, schema, value, old, "", true);
        run.errors
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.rules.is_empty()
            && self.properties.is_empty()
            && self.additional.is_none()
            && self.items.is_none()
    }

    fn compile(schema: &Schema, path: &str, errors: &mut Vec<FieldError>) -> Option<Self> {
        let mut node = Self::default();
        for (position, rule) in schema.constraints.rules.iter().enumerate() {
            let place = field::index(&field::child(path, "x-kubernetes-validations"), position);
            node.rules.extend(CompiledRule::compile(rule, &place, errors));
        }
        for (name, property) in &schema.properties {
            let place = field::key(&field::child(path, "properties"), name);
            if let Some(below) =
                convert::inline(property).and_then(|below| Self::compile(below, &place, errors))
            {
                node.properties.insert(name.clone(), below);
            }
        }
        let mut single = |reference: Option<&crate::model::SchemaRef>, name: &str| {
            let below = reference.and_then(convert::inline)?;
            Self::compile(below, &field::child(path, name), errors).map(Box::new)
        };
        node.additional = single(schema.additional.as_ref(), "additionalProperties");
        node.items = single(schema.items.as_ref(), "items");
        (!node.is_empty()).then_some(node)
    }
}

impl CompiledRule {
    fn compile(rule: &Rule, place: &str, errors: &mut Vec<FieldError>) -> Option<Self> {
        let before = errors.len();
        let mut compile = |name: &str, source: &str| match Program::compile(source) {
            Ok(program) => Some(program),
            Err(problem) => {
                let detail = format!("compilation failed: {problem}");
                errors.push(FieldError::invalid(field::child(place, name), source, detail));
                None
            }
        };
        if rule.rule.trim().is_empty() {
            errors.push(FieldError::required(field::child(place, "rule"), "rule is not specified"));
            return None;
        }
        let program = compile("rule", &rule.rule);
        let message =
            rule.message_expression.as_deref().and_then(|source| compile("messageExpression", source));
        let kind = match rule.reason.as_deref() {
            None | Some("FieldValueInvalid") => ErrorKind::Invalid,
            Some("FieldValueForbidden") => ErrorKind::Forbidden,
            Some("FieldValueRequired") => ErrorKind::Required,
            Some("FieldValueDuplicate") => ErrorKind::Duplicate,
            Some(other) => {
                let supported =
                    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
                errors.push(FieldError::not_supported(field::child(place, "reason"), other, supported));
                ErrorKind::Invalid
            }
        };
        if errors.len() > before {
            return None;
        }
        Some(Self { source: rule.clone(), kind, program: program?, message })
    }

    /// What a failure is called when it is the rule itself that cannot be evaluated.
    fn name(&self) -> &str {
        self.source.message.as_deref().filter(|text| !text.is_empty()).unwrap_or(&self.source.rule).trim()
    }

    fn failure_text(&self, value: &cel::Value, old: Option<&cel::Value>) -> String {
        if let Some(program) = &self.message
            && let Ok(text) = program.text(value, old, self.source.optional_old_self)
            && !text.trim().is_empty()
            && !text.contains('\n')
        {
            return text.trim().to_owned();
        }
        match self.source.message.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => text.trim().to_owned(),
            None => format!("failed rule: {}", self.source.rule.trim()),
        }
    }
}

/// One validation of one object.
struct Run {
    errors: Vec<FieldError>,
    budget: u64,
}

impl Run {
    fn node(
        &mut self,
        node: &Node,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        root: bool,
    ) {
        let absent = value.is_null() && schema.nullable;
        if !absent && !node.rules.is_empty() {
            self.rules(node, schema, value, old, path, root);
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let old = old.and_then(|old| old.get(name));
                    let (below, schema, path) = match schema.properties.get(name) {
                        Some(property) => {
                            (node.properties.get(name), Some(property), field::child(path, name))
                        }
                        None => {
                            (node.additional.as_deref(), schema.additional.as_ref(), field::key(path, name))
                        }
                    };
                    if let (Some(below), Some(schema)) = (below, schema.and_then(convert::inline)) {
                        self.node(below, schema, value, old, &path, false);
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = &node.items else { return };
                let Some(item_schema) = schema.items.as_ref().and_then(convert::inline) else { return };
                for (position, item) in items.iter().enumerate() {
                    let old = old_item(&schema.list, old, item);
                    self.node(below, item_schema, item, old, &field::index(path, position), false);
                }
            }
            _ => {}
        }
    }

    fn rules(
        &mut self,
        node: &Node,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        root: bool,
    ) {
        let unchanged = old == Some(value);
        let mut converted = None;
        for rule in &node.rules {
            let transition = rule.program.uses_old_self();
            if transition && old.is_none() && !rule.source.optional_old_self || !transition && unchanged {
                continue;
            }
            let (now, before) = &*converted.get_or_insert_with(|| {
                (convert::to_cel(schema, value, root), old.map(|old| convert::to_cel(schema, old, root)))
            });
            let shown = if value.is_object() || value.is_array() { None } else { Some(value.clone()) };
            let steps = rule.program.steps(value);
            if steps > self.budget {
                let detail = format!(
                    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run \
                     due to call cost exceeds limit for rule: {}",
                    rule.name()
                );
                self.errors.push(FieldError::new(path, ErrorKind::Invalid, shown, detail));
                self.budget = 0;
                return;
            }
            self.budget -= steps;
            let detail = match rule.program.check(now, before.as_ref(), rule.source.optional_old_self) {
                Verdict::Holds => continue,
                Verdict::Fails => {
                    let detail = rule.failure_text(now, before.as_ref());
                    let path = format!("{path}{}", rule.source.field_path.as_deref().unwrap_or_default());
                    let path = path.trim_start_matches('.');
                    self.errors.push(FieldError::new(path, rule.kind, shown, detail));
                    continue;
                }
                Verdict::NoOverload => format!(
                    "'no such overload': call arguments did not match a supported operator, function or macro \
                     signature for rule: {}",
                    rule.name()
                ),
                Verdict::Error(problem) => format!("{problem} evaluating rule: {}", rule.name()),
            };
            self.errors.push(FieldError::new(path, ErrorKind::Invalid, shown, detail));
        }
    }
}

#[cfg(test)]
mod tests;
