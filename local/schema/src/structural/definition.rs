//! `CustomResourceDefinition`: reading, defaulting and checking.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde_json::{Value, json};

use super::Validator;
use super::schema;
use crate::cel::Rules;
use crate::field::{self, FieldError};
use crate::model::Schema;

/// A custom resource as its definition describes it.
#[derive(Debug, Clone)]
pub struct CustomResource {
    /// API group, such as `kubeflow.org`.
    pub group: String,
    /// Plural name, as in URLs.
    pub plural: String,
    /// Singular name, for people.
    pub singular: String,
    /// Kind of an object.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Short names for the command line.
    pub short_names: Vec<String>,
    /// Groups such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// All versions, in the order of the definition.
    pub versions: Vec<Version>,
}

/// Where objects live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the whole cluster.
    Cluster,
}

/// One version of a custom resource.
#[derive(Debug, Clone)]
pub struct Version {
    /// Such as `v1`.
    pub name: String,
    /// Whether clients may use it.
    pub served: bool,
    /// Whether objects are stored in it.
    pub storage: bool,
    /// Whether clients are warned, and with which words, if not the usual ones.
    pub deprecated: Option<Option<String>>,
    /// The schema.
    pub schema: Arc<Schema>,
    /// The schema made ready for use.
    pub validator: Arc<Validator>,
    /// Subresources.
    pub subresources: Subresources,
    /// Columns of `kubectl get`, besides the name.
    pub printer_columns: Vec<PrinterColumn>,
    /// JSON paths that field selectors may use, such as `.spec.color`.
    pub selectable_fields: Vec<String>,
}

/// Subresources of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subresources {
    /// `/status` exists and is written apart from the rest.
    pub status: bool,
    /// `/scale` exists.
    pub scale: Option<ScalePaths>,
}

/// Where `/scale` finds its values, as JSON paths such as `.spec.replicas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec_replicas: String,
    /// Present replicas.
    pub status_replicas: String,
    /// The label selector as text.
    pub label_selector: Option<String>,
}

/// A column of `kubectl get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrinterColumn {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// OpenAPI format.
    pub format: String,
    /// Text for people.
    pub description: String,
    /// 0 is always shown, more only in wide output.
    pub priority: i64,
    /// Where the value is.
    pub json_path: String,
}

/// Names that other definitions of the same group use.
#[derive(Debug, Clone, Default)]
pub struct NamesInUse {
    /// Plural, singular and short names.
    pub resources: BTreeSet<String>,
    /// Kinds and list kinds.
    pub kinds: BTreeSet<String>,
}

/// Fills in what Kubernetes fills in: singular, listKind, conversion.
pub fn apply_definition_defaults(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let missing = |value: Option<&Value>| value.and_then(Value::as_str).is_none_or(str::is_empty);
    if missing(names.get("singular")) {
        names.insert("singular".to_owned(), kind.to_lowercase().into());
    }
    if missing(names.get("listKind")) && !kind.is_empty() {
        names.insert("listKind".to_owned(), format!("{kind}List").into());
    }
}

static LABEL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[a-z]([-a-z0-9]*[a-z0-9])?$").ok());

impl CustomResource {
    /// Reads a definition whose defaults are filled in.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the words Kubernetes uses.
    pub fn parse(definition: &Value) -> Result<Self, Vec<FieldError>> {
        let mut reader = Reader { errors: Vec::new() };
        let resource = reader.resource(definition);
        if reader.errors.is_empty() { Ok(resource) } else { Err(reader.errors) }
    }

    /// The version objects are stored in.
    pub fn storage_version(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.storage)
    }

    /// A served version by its name.
    pub fn served_version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.served && version.name == name)
    }

    /// The definition's name: `plural.group`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

struct Reader {
    errors: Vec<FieldError>,
}

impl Reader {
    fn resource(&mut self, definition: &Value) -> CustomResource {
        let spec = &definition["spec"];
        let names = &spec["names"];
        let resource = CustomResource {
            group: string(spec, "group"),
            plural: string(names, "plural"),
            singular: string(names, "singular"),
            kind: string(names, "kind"),
            list_kind: string(names, "listKind"),
            short_names: strings(names, "shortNames"),
            categories: strings(names, "categories"),
            scope: if spec["scope"] == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
            versions: Vec::new(),
        };
        self.check_names(&resource, definition);
        let versions = self.versions(spec);
        CustomResource { versions, ..resource }
    }

    fn check_names(&mut self, resource: &CustomResource, definition: &Value) {
        let name = string(&definition["metadata"], "name");
        if name != resource.name() {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            self.errors.push(FieldError::invalid("metadata.name", name, detail));
        }
        if resource.group.is_empty() {
            self.errors.push(FieldError::required("spec.group", ""));
        } else if !resource.group.contains('.') {
            let detail = "should be a domain with at least one dot";
            self.errors.push(FieldError::invalid("spec.group", resource.group.as_str(), detail));
        }
        match definition["spec"]["scope"].as_str() {
            Some("Namespaced" | "Cluster") => {}
            None | Some("") => self.errors.push(FieldError::required("spec.scope", "")),
            Some(other) => {
                self.errors.push(FieldError::not_supported("spec.scope", other, ["Cluster", "Namespaced"]));
            }
        }
        self.check_conversion(&definition["spec"]["conversion"]);
        for (name, value) in [
            ("plural", &resource.plural),
            ("singular", &resource.singular),
            ("kind", &resource.kind),
            ("listKind", &resource.list_kind),
        ] {
            let path = format!("spec.names.{name}");
            let lower = value.to_lowercase();
            if value.is_empty() {
                self.errors.push(FieldError::required(path, ""));
            } else if LABEL.as_ref().is_some_and(|label| !label.is_match(&lower)) || lower.len() > 63 {
                let what = if name.ends_with("ind") {
                    "may have mixed case, but should otherwise match: "
                } else {
                    ""
                };
                let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with \
                            an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or \
                            'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
                self.errors.push(FieldError::invalid(path, value.as_str(), format!("{what}{rule}")));
            }
        }
        if !resource.kind.is_empty() && resource.kind == resource.list_kind {
            let detail = "kind and listKind may not be the same";
            self.errors.push(FieldError::invalid("spec.names.listKind", resource.list_kind.as_str(), detail));
        }
    }

    fn check_conversion(&mut self, conversion: &Value) {
        match conversion["strategy"].as_str() {
            None | Some("None" | "Webhook") => {}
            Some(other) => self.errors.push(FieldError::not_supported(
                "spec.conversion.strategy",
                other,
                ["None", "Webhook"],
            )),
        }
    }

    fn versions(&mut self, spec: &Value) -> Vec<Version> {
        let sources = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
        let mut names = BTreeSet::new();
        let mut versions = Vec::with_capacity(sources.len());
        for (position, source) in sources.iter().enumerate() {
            let path = field::index("spec.versions", position);
            let version = self.version(source, &path);
            if LABEL.as_ref().is_some_and(|label| !label.is_match(&version.name)) {
                let detail = "must be a DNS label, such as \"v1\"";
                self.errors.push(FieldError::invalid(
                    field::child(&path, "name"),
                    version.name.as_str(),
                    detail,
                ));
            }
            if !names.insert(version.name.clone()) {
                let detail = "must contain unique version names";
                self.errors.push(FieldError::invalid("spec.versions", spec["versions"].clone(), detail));
            }
            versions.push(version);
        }
        if versions.iter().filter(|version| version.storage).count() != 1 {
            let detail = "must have exactly one version marked as storage version";
            self.errors.push(FieldError::invalid("spec.versions", spec["versions"].clone(), detail));
        }
        versions
    }

    fn version(&mut self, source: &Value, path: &str) -> Version {
        let place = format!("{path}.schema.openAPIV3Schema");
        let schema_source = &source["schema"]["openAPIV3Schema"];
        let schema = if schema_source.is_object() {
            schema::read(schema_source, &place, &mut self.errors)
        } else {
            self.errors.push(FieldError::required(place.clone(), "schemas are required"));
            Arc::default()
        };
        let rules = Rules::compile(&schema, &place).unwrap_or_else(|errors| {
            self.errors.extend(errors);
            Rules::default()
        });
        let subresources = self.subresources(&source["subresources"], path);
        let validator = Arc::new(Validator::new(Arc::clone(&schema), rules, subresources.scale.clone()));
        let deprecated = source["deprecated"].as_bool().unwrap_or(false);
        Version {
            name: string(source, "name"),
            served: source["served"].as_bool().unwrap_or(false),
            storage: source["storage"].as_bool().unwrap_or(false),
            deprecated: deprecated.then(|| source["deprecationWarning"].as_str().map(str::to_owned)),
            schema,
            validator,
            subresources,
            printer_columns: self.columns(source, path),
            selectable_fields: list(source, "selectableFields")
                .iter()
                .map(|field| string(field, "jsonPath"))
                .collect(),
        }
    }

    fn subresources(&mut self, source: &Value, path: &str) -> Subresources {
        let scale = source.get("scale").filter(|scale| scale.is_object()).map(|scale| {
            let place = format!("{path}.subresources.scale");
            for (name, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
                let value = string(scale, name);
                let field_path = field::child(&place, name);
                if value.is_empty() {
                    self.errors.push(FieldError::required(field_path, ""));
                } else if !value.starts_with(root) {
                    let detail = format!("should be a json path under {}", root.trim_end_matches('.'));
                    self.errors.push(FieldError::invalid(field_path, value, detail));
                }
            }
            ScalePaths {
                spec_replicas: string(scale, "specReplicasPath"),
                status_replicas: string(scale, "statusReplicasPath"),
                label_selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
            }
        });
        Subresources { status: source.get("status").is_some_and(Value::is_object), scale }
    }

    fn columns(&mut self, source: &Value, path: &str) -> Vec<PrinterColumn> {
        const KINDS: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
        let mut columns = Vec::new();
        for (position, column) in list(source, "additionalPrinterColumns").iter().enumerate() {
            let place = field::index(&field::child(path, "additionalPrinterColumns"), position);
            for name in ["name", "type", "jsonPath"] {
                if string(column, name).is_empty() {
                    self.errors.push(FieldError::required(field::child(&place, name), ""));
                }
            }
            let kind = string(column, "type");
            if !kind.is_empty() && !KINDS.contains(&kind.as_str()) {
                let detail = format!("must be one of {}", KINDS.join(","));
                self.errors.push(FieldError::invalid(field::child(&place, "type"), kind.as_str(), detail));
            }
            columns.push(PrinterColumn {
                name: string(column, "name"),
                kind,
                format: string(column, "format"),
                description: string(column, "description"),
                priority: column["priority"].as_i64().unwrap_or(0),
                json_path: string(column, "jsonPath"),
            });
        }
        columns
    }
}

fn string(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn strings(value: &Value, name: &str) -> Vec<String> {
    list(value, name).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
