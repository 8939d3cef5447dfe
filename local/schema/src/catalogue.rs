//! The built-in kinds of Kubernetes, read from one embedded file.
//!
//! The file is unpacked once; a definition is parsed when it is first asked for, and then kept.

mod parse;

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::model::{Schema, SchemaRef};

static DATA: &[u8] = include_bytes!("../data/kubernetes-1.36.jsonl.gz");

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the embedded file is read whole by this module's tests")]
    Catalogue::read(DATA).expect("the embedded catalogue of built-in kinds is readable")
});

/// Group, version and kind of an API type; the group of the core types is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct GroupVersionKind(pub String, pub String, pub String);

/// Every built-in definition by name and by kind.
#[derive(Debug)]
pub struct Catalogue {
    text: String,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    by_kind: HashMap<GroupVersionKind, usize>,
}

/// One line of the file: where it is, and what it says once somebody has asked.
#[derive(Debug)]
struct Entry {
    line: Range<usize>,
    kinds: Vec<GroupVersionKind>,
    definition: OnceLock<Definition>,
}

/// What the file says about one type.
#[derive(Debug, Default)]
struct Definition {
    schema: Option<Arc<Schema>>,
    message: Message,
}

/// The protobuf form of a type.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Its fields in order of their numbers.
    fields: Vec<WireField>,
}

impl Message {
    /// The field with this number.
    pub(crate) fn field(&self, number: u32) -> Option<&WireField> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|index| &self.fields[index])
    }

    /// All fields in order of their numbers.
    #[cfg(test)]
    pub(crate) fn fields(&self) -> &[WireField] {
        &self.fields
    }
}

/// One field of a protobuf message.
#[derive(Debug)]
pub(crate) struct WireField {
    /// The number on the wire.
    pub(crate) number: u32,
    /// The name in JSON.
    pub(crate) name: String,
    /// What one value is.
    pub(crate) kind: WireType,
    /// How often it may occur and where it stands in JSON.
    pub(crate) shape: WireShape,
}

/// What one value of a protobuf field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WireType {
    String,
    Bool,
    Integer,
    Double,
    Bytes,
    /// A nested message, by the name of its definition.
    Message(String),
}

/// How often a protobuf field may occur and where it stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WireShape {
    /// At most once; a zero is a value like any other.
    One,
    /// At most once; a zero means that it is not set.
    Value,
    /// Any number of times.
    List,
    /// A map with string keys.
    Map,
    /// A message whose fields stand in the outer object.
    Inline,
}

/// Why the embedded file cannot be read.
#[derive(Debug, thiserror::Error)]
enum CatalogueError {
    #[error("cannot unpack the catalogue: {0}")]
    Unpack(#[from] std::io::Error),
    #[error("line {0} of the catalogue: {1}")]
    Line(usize, serde_json::Error),
}

#[derive(Deserialize)]
struct Header {
    name: String,
    #[serde(default)]
    kinds: Vec<GroupVersionKind>,
}

impl Catalogue {
    /// The catalogue of the built-in kinds. The first call unpacks it (some milliseconds).
    pub fn get() -> &'static Self {
        &CATALOGUE
    }

    fn read(packed: &[u8]) -> Result<Self, CatalogueError> {
        let mut text = String::new();
        GzDecoder::new(packed).read_to_string(&mut text)?;
        let mut entries = Vec::new();
        let (mut by_name, mut by_kind) = (HashMap::new(), HashMap::new());
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let index = entries.len();
            let header: Header =
                serde_json::from_str(line).map_err(|error| CatalogueError::Line(index, error))?;
            let kinds = header.kinds.iter().cloned();
            by_kind.extend(kinds.map(|kind| (kind, index)));
            by_name.insert(header.name, index);
            let line = start..start + line.len();
            start = line.end;
            entries.push(Entry { line, kinds: header.kinds, definition: OnceLock::new() });
        }
        Ok(Self { text, entries, by_name, by_kind })
    }

    /// The schema of the definition with this name, such as `io.k8s.api.core.v1.PodSpec`.
    pub fn definition(&self, name: &str) -> Option<Arc<Schema>> {
        self.load(name)?.schema.clone()
    }

    /// The schema of a built-in kind; the group of the core kinds is empty.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<SchemaRef> {
        self.definition_name(group, version, kind).map(|name| SchemaRef::Definition(name.into()))
    }

    /// The name of the definition of a built-in kind.
    pub fn definition_name(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        let key = GroupVersionKind(group.to_owned(), version.to_owned(), kind.to_owned());
        let line = self.text.get(self.entries[*self.by_kind.get(&key)?].line.clone())?;
        serde_json::from_str::<Header>(line).ok().map(|header| header.name)
    }

    /// The group, version and kind under which a definition can be sent to the server; none for a nested type.
    pub fn kinds(&self, name: &str) -> &[GroupVersionKind] {
        self.by_name.get(name).map_or(&[], |index| self.entries[*index].kinds.as_slice())
    }

    /// The names of all definitions, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The schema that a reference stands for. A name that is not in the catalogue stands for any value.
    pub fn resolve(&self, reference: &SchemaRef) -> Arc<Schema> {
        match reference {
            SchemaRef::Inline(schema) => Arc::clone(schema),
            SchemaRef::Definition(name) => self
                .definition(name)
                .unwrap_or_else(|| Arc::new(Schema { preserve_unknown: true, ..Schema::default() })),
        }
    }

    /// The protobuf form of the definition with this name.
    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        Some(&self.load(name)?.message)
    }

    fn load(&self, name: &str) -> Option<&Definition> {
        let entry = &self.entries[*self.by_name.get(name)?];
        Some(entry.definition.get_or_init(|| parse::definition(self, &self.text[entry.line.clone()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ListKind, Type};

    #[test]
    fn every_definition_of_the_file_is_readable_and_every_reference_leads_somewhere() {
        let catalogue = Catalogue::get();
        fn follow(catalogue: &Catalogue, reference: &SchemaRef) {
            match reference {
                SchemaRef::Definition(name) => assert!(catalogue.definition(name).is_some(), "{name}"),
                SchemaRef::Inline(schema) => walk(catalogue, schema),
            }
        }
        fn walk(catalogue: &Catalogue, schema: &Schema) {
            schema
                .properties
                .values()
                .chain(&schema.items)
                .chain(&schema.additional)
                .for_each(|reference| follow(catalogue, reference));
        }
        for name in catalogue.names() {
            let definition = catalogue.load(name).unwrap();
            if let Some(schema) = &definition.schema {
                assert!(
                    !schema.properties.is_empty()
                        || schema.kind != Type::Object
                        || schema.preserve_unknown
                        || EMPTY.iter().any(|suffix| name.ends_with(suffix)),
                    "{name}"
                );
                walk(catalogue, schema);
            }
            for field in definition.message.fields() {
                if let WireType::Message(inner) = &field.kind {
                    assert!(catalogue.message(inner).is_some(), "{name}.{}", field.name);
                }
            }
        }
    }

    /// Definitions that have no properties at all.
    const EMPTY: [&str; 4] =
        ["StorageVersionSpec", "BasicSchedulingPolicy", "CustomResourceSubresourceStatus", "meta.v1.Patch"];

    #[test]
    fn pods_have_containers_merged_by_name() {
        let catalogue = Catalogue::get();
        let pod = catalogue.resolve(&catalogue.by_kind("", "v1", "Pod").unwrap());
        let spec = catalogue.resolve(&pod.properties["spec"]);
        let containers = catalogue.resolve(&spec.properties["containers"]);
        assert_eq!(containers.list, ListKind::Map(vec!["name".into()]));
        assert_eq!(containers.patch_merge_key.as_deref(), Some("name"));
        assert_eq!(containers.patch_strategy, ["merge"]);
        assert_eq!(spec.required, ["containers"]);
        assert_eq!(catalogue.by_kind("apps", "v1", "Pod"), None);
    }

    #[test]
    fn a_reference_with_its_own_merge_strategy_keeps_both() {
        let catalogue = Catalogue::get();
        let spec = catalogue.definition("io.k8s.api.apps.v1.DeploymentSpec").unwrap();
        let strategy = catalogue.resolve(&spec.properties["strategy"]);
        assert_eq!(strategy.patch_strategy, ["retainKeys"]);
        assert!(strategy.properties.contains_key("rollingUpdate"));
        assert_eq!(strategy.definition.as_deref(), Some("io.k8s.api.apps.v1.DeploymentStrategy"));
    }

    #[test]
    fn types_with_their_own_json_form_are_marked() {
        let catalogue = Catalogue::get();
        assert!(
            catalogue.definition("io.k8s.apimachinery.pkg.util.intstr.IntOrString").unwrap().int_or_string
        );
        let quantity = catalogue.definition("io.k8s.apimachinery.pkg.api.resource.Quantity").unwrap();
        assert_eq!(quantity.format.as_deref(), Some("quantity"));
        assert!(
            catalogue.definition("io.k8s.apimachinery.pkg.runtime.RawExtension").unwrap().preserve_unknown
        );
    }
}
