//! The one schema type that built-in kinds and custom resources share.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::pattern::Pattern;

/// A schema, or the name of a built-in definition that is looked up when needed (built-in types recurse).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaRef {
    /// A schema written in place, as custom resources have them.
    Inline(Arc<Schema>),
    /// A definition of the built-in catalogue, such as `io.k8s.api.core.v1.PodSpec`.
    Definition(Arc<str>),
}

/// What JSON value a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// Any value: no type was given.
    #[default]
    Any,
    /// An object with named properties, or a map when `additional` is set.
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// How server-side apply and strategic merge treat a list (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Scalars that may occur once.
    Set,
    /// Objects told apart by these fields.
    Map(Vec<String>),
}

/// A node of a Kubernetes object schema.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schema {
    /// The JSON type.
    pub kind: Type,
    /// Named fields of an object.
    pub properties: BTreeMap<String, SchemaRef>,
    /// The schema of the values of a map (`additionalProperties`).
    pub additional: Option<SchemaRef>,
    /// The schema of a list's items.
    pub items: Option<SchemaRef>,
    /// Names of fields that must be there.
    pub required: Vec<String>,
    /// Merge behaviour of a list.
    pub list: ListKind,
    /// `x-kubernetes-map-type: atomic`: an object that is replaced as a whole.
    pub atomic_map: bool,
    /// `x-kubernetes-patch-merge-key` of a list, for strategic merge patches.
    pub patch_merge_key: Option<String>,
    /// `x-kubernetes-patch-strategy`, such as `merge` or `retainKeys`.
    pub patch_strategy: Vec<String>,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded_resource: bool,
    /// May be null.
    pub nullable: bool,
    /// The default value.
    pub default: Option<Value>,
    /// `format`, such as `int32`, `date-time` or `quantity`.
    pub format: Option<String>,
    /// Value constraints of a custom resource; empty for built-in types.
    pub constraints: Constraints,
    /// The built-in definition that this schema is, when a field of that type has merge keywords of its own.
    pub definition: Option<Arc<str>>,
    /// Text for people (`description`).
    pub description: Option<String>,
}

/// Value constraints as a custom resource's structural schema states them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constraints {
    /// Allowed values.
    pub enumeration: Vec<Value>,
    /// Smallest number and whether it is excluded.
    pub minimum: Option<(serde_json::Number, bool)>,
    /// Largest number and whether it is excluded.
    pub maximum: Option<(serde_json::Number, bool)>,
    /// The number must be a multiple of this.
    pub multiple_of: Option<serde_json::Number>,
    /// Fewest characters.
    pub min_length: Option<u64>,
    /// Most characters.
    pub max_length: Option<u64>,
    /// A regular expression that must match somewhere.
    pub pattern: Option<Pattern>,
    /// Fewest items.
    pub min_items: Option<u64>,
    /// Most items.
    pub max_items: Option<u64>,
    /// Items must differ.
    pub unique_items: bool,
    /// Fewest properties.
    pub min_properties: Option<u64>,
    /// Most properties.
    pub max_properties: Option<u64>,
    /// All of these must hold.
    pub all_of: Vec<SchemaRef>,
    /// At least one of these must hold.
    pub any_of: Vec<SchemaRef>,
    /// Exactly one of these must hold.
    pub one_of: Vec<SchemaRef>,
    /// This must not hold.
    pub not: Option<SchemaRef>,
    /// `x-kubernetes-validations`, in order.
    pub rules: Vec<Rule>,
}

/// One CEL rule of `x-kubernetes-validations`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The CEL expression over `self` and `oldSelf`.
    pub rule: String,
    /// What to say when it is false.
    pub message: Option<String>,
    /// A CEL expression that yields what to say.
    pub message_expression: Option<String>,
    /// The cause's reason, such as `FieldValueInvalid`.
    pub reason: Option<String>,
    /// A path below the rule's place, such as `.spec.name`.
    pub field_path: Option<String>,
    /// Whether a transition rule also runs on creation.
    pub optional_old_self: bool,
}
