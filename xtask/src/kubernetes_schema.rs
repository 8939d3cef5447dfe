//! Generates `local/schema/data/kubernetes-1.36.jsonl.gz`: what the built-in kinds look like in JSON and in protobuf.
//!
//! Two published sources are joined: the OpenAPI definitions (`_definitions.json` of the Python package
//! `kubernetes-validate`) and the prost messages of the crate `k8s-pb` (for field numbers). Texts are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder};
use fs_err as fs;
use serde_json::{Map, Value, json};

/// Schema keywords that are copied; everything else (texts, enums made up by the packager) is dropped.
const KEYWORDS: [&str; 8] = [
    "format",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "type",
];

/// Fields that tell the items of a list apart although they may be left out, and what they are then. The source
/// leaves defaults out; server-side apply cannot name an item without them.
const KEY_DEFAULTS: [(&str, &str, &str); 2] =
    [("core.v1.ContainerPort", "protocol", "TCP"), ("core.v1.ServicePort", "protocol", "TCP")];

/// Optional booleans and integers that Go holds by value. Go's protobuf encoder always writes them, so a zero
/// on the wire means "not set". The other optional ones are pointers, where a zero was written on purpose.
const HELD_BY_VALUE: [&str; 84] = [
    "active",
    "allowWatchBookmarks",
    "allowed",
    "authenticated",
    "availableReplicas",
    "chapAuthDiscovery",
    "chapAuthSession",
    "clusterScope",
    "code",
    "containerPort",
    "count",
    "currentNumberScheduled",
    "currentReplicas",
    "denied",
    "deprecated",
    "deprecatedCount",
    "desiredNumberScheduled",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "exitCode",
    "failed",
    "failureThreshold",
    "follow",
    "fullyLabeledReplicas",
    "generation",
    "globalDefault",
    "handSize",
    "healthCheckNodePort",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "incomplete",
    "initialDelaySeconds",
    "insecureSkipTLSVerify",
    "insecureSkipTLSVerifyBackend",
    "matchingPrecedence",
    "maxReplicas",
    "minReadySeconds",
    "nodePort",
    "nullable",
    "number",
    "numberAvailable",
    "numberMisscheduled",
    "numberReady",
    "numberUnavailable",
    "observedGeneration",
    "partition",
    "paused",
    "periodSeconds",
    "preserveUnknownFields",
    "previous",
    "priority",
    "publishNotReadyAddresses",
    "queueLengthLimit",
    "queues",
    "readOnly",
    "readyReplicas",
    "restartCount",
    "retryAfterSeconds",
    "sendInitialEvents",
    "served",
    "signal",
    "sizeBytes",
    "sslEnabled",
    "stderr",
    "stdin",
    "stdinOnce",
    "stdout",
    "storage",
    "succeeded",
    "successThreshold",
    "timeoutSeconds",
    "timestamps",
    "tty",
    "unavailableReplicas",
    "uniqueItems",
    "unschedulable",
    "updatedNumberScheduled",
    "updatedReplicas",
    "watch",
    "weight",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
];

/// Exceptions to [`HELD_BY_VALUE`] and to the rule that strings are held by value: `Definition.field` is a pointer.
const POINTERS: [&str; 13] = [
    "CSIVolumeSource.fsType",
    "CSIVolumeSource.readOnly",
    "EndpointPort.name",
    "IngressSpec.ingressClassName",
    "LeaseSpec.holderIdentity",
    "PersistentVolumeClaimSpec.storageClassName",
    "PersistentVolumeClaimSpec.volumeAttributesClassName",
    "PersistentVolumeSpec.volumeAttributesClassName",
    "PodSpec.priority",
    "PodSpec.runtimeClassName",
    "RollingUpdateStatefulSetStrategy.partition",
    "ServicePort.appProtocol",
    "WebhookClientConfig.url",
];

/// Integers that are held by value in these definitions although pointers carry the same name elsewhere.
const VALUES: [&str; 6] = [
    "DeploymentStatus.replicas",
    "ReplicaSetStatus.replicas",
    "ReplicationControllerStatus.replicas",
    "ScaleSpec.replicas",
    "ScaleStatus.replicas",
    "StatefulSetStatus.replicas",
];

/// Reads both sources and writes the gzipped catalogue, one JSON object per line, sorted by name.
///
/// `definitions` is the file `_definitions.json`, `protobuf` the `src` folder of `k8s-pb`.
pub(crate) fn run(definitions: &Path, protobuf: &Path, output: &Path) -> Result<()> {
    let document: Value =
        serde_json::from_slice(&fs::read(definitions)?).context("reading the OpenAPI definitions")?;
    let definitions = document["$defs"].as_object().context("the definitions file has no `$defs`")?;
    let messages = Messages::read(protobuf)?;
    let mut lines = BTreeMap::new();
    for (name, definition) in definitions {
        lines.insert(name.clone(), entry(name, Some(definition), &messages, definitions)?);
    }
    // Messages that exist only on the wire, such as the envelope and the wrappers of lists in maps.
    let mut wanted: BTreeSet<String> = referenced_messages(&lines);
    wanted.insert("io.k8s.apimachinery.pkg.runtime.Unknown".into());
    while let Some(name) = wanted.pop_first() {
        if !lines.contains_key(&name) {
            lines.insert(name.clone(), entry(&name, None, &messages, definitions)?);
            wanted.extend(referenced_messages(&lines).into_iter().filter(|other| !lines.contains_key(other)));
        }
    }
    // No time and no file name in the header: the same sources give the same bytes.
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    for line in lines.values() {
        serde_json::to_writer(&mut encoder, line)?;
        encoder.write_all(b"\n")?;
    }
    fs::write(output, encoder.finish()?)?;
    Ok(())
}

fn referenced_messages(lines: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let fields = lines.values().filter_map(|line| line["fields"].as_array()).flatten();
    fields.filter_map(|field| field[2].as_str()?.strip_prefix('.').map(str::to_owned)).collect()
}

/// One line of the catalogue.
fn entry(
    name: &str,
    definition: Option<&Value>,
    messages: &Messages,
    definitions: &Map<String, Value>,
) -> Result<Value> {
    let mut line = Map::new();
    line.insert("name".into(), name.into());
    if let Some(definition) = definition {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
        let kinds: Vec<_> = kinds.map(|kind| json!([kind["group"], kind["version"], kind["kind"]])).collect();
        if !kinds.is_empty() {
            line.insert("kinds".into(), kinds.into());
        }
        let mut schema = special_schema(name).unwrap_or(schema(definition)?);
        for (definition, field, default) in KEY_DEFAULTS {
            if name.ends_with(definition) {
                schema["properties"][field]["default"] = default.into();
            }
        }
        line.insert("schema".into(), schema);
    }
    if let Some(message) = messages.by_name.get(&name.to_lowercase()) {
        let fields = message.fields.iter();
        let fields =
            fields.filter_map(|field| wire_field(name, field, definition, messages, definitions).transpose());
        line.insert("fields".into(), fields.collect::<Result<Vec<_>>>()?.into());
    }
    Ok(line.into())
}

/// Schemas of types with their own JSON form, which the source describes with `oneOf` or not at all.
fn special_schema(name: &str) -> Option<Value> {
    let last = name.rsplit('.').next()?;
    Some(match last {
        "IntOrString" => json!({"format": "int-or-string", "x-kubernetes-int-or-string": true}),
        "Quantity" => json!({"type": "string", "format": "quantity"}),
        "RawExtension" | "FieldsV1" => {
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
        }
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
            json!({"x-kubernetes-preserve-unknown-fields": true})
        }
        _ => return None,
    })
}

fn schema(source: &Value) -> Result<Value> {
    let mut result = Map::new();
    for keyword in KEYWORDS {
        let Some(value) = source.get(keyword) else { continue };
        let value = match value {
            // The packager lets every optional field be null, which the wire format says for all of them alike.
            Value::Array(types) if keyword == "type" => {
                types.iter().find(|kind| *kind != "null").cloned().context("a type that is only null")?
            }
            other => other.clone(),
        };
        result.insert(keyword.into(), value);
    }
    if let Some(reference) = source["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").with_context(|| format!("reference {reference}"))?;
        result.insert("$ref".into(), name.into());
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = source.get(keyword) {
            result.insert(keyword.into(), schema(inner)?);
        }
    }
    if let Some(properties) = source["properties"].as_object() {
        let properties: Result<Map<_, _>> =
            properties.iter().map(|(name, inner)| Ok((name.clone(), schema(inner)?))).collect();
        result.insert("properties".into(), properties?.into());
    }
    Ok(result.into())
}

/// `[number, JSON name, type, shape]`, or nothing for a field that the JSON form no longer has;
/// see `local/schema/data/README.md`.
fn wire_field(
    owner: &str,
    field: &Field,
    definition: Option<&Value>,
    messages: &Messages,
    definitions: &Map<String, Value>,
) -> Result<Option<Value>> {
    let properties = definition.and_then(|definition| definition["properties"].as_object());
    let wanted = folded(&field.name);
    let property = properties.and_then(|all| all.keys().find(|name| folded(name) == wanted));
    let name = property.cloned().unwrap_or_else(|| camel_case(&field.name));
    let (kind, mut shape) = match &field.kind {
        Kind::Scalar(scalar) => ((*scalar).to_owned(), field.shape),
        Kind::Message(message) => {
            let message = messages
                .by_name
                .get(&message.to_lowercase())
                .with_context(|| format!("message {message}"))?;
            let lower = message.name.to_lowercase();
            let known = definitions.keys().find(|name| name.to_lowercase() == lower);
            (format!(".{}", known.unwrap_or(&message.name)), field.shape)
        }
    };
    if let (Some(properties), None) = (properties, property) {
        // An embedded Go struct: its fields stand in the outer JSON object.
        let Some(inner) = messages.by_name.get(&kind.trim_start_matches('.').to_lowercase()) else {
            return Ok(None);
        };
        let known: BTreeSet<_> = properties.keys().map(|name| folded(name)).collect();
        let embedded =
            |field: &Field| known.contains(&folded(&field.name)) || matches!(field.kind, Kind::Message(_));
        if shape != "one" || !inner.fields.iter().all(embedded) {
            return Ok(None);
        }
        shape = "inline";
    }
    if shape == "one" && !kind.starts_with('.') && kind != "double" {
        let required = definition.and_then(|definition| definition["required"].as_array());
        let required = required.is_some_and(|all| all.iter().any(|other| *other == *name));
        let path = format!("{}.{name}", owner.rsplit('.').next().unwrap_or(owner));
        let value = match kind.as_str() {
            "string" | "bytes" => true,
            _ => HELD_BY_VALUE.contains(&name.as_str()) || VALUES.contains(&path.as_str()),
        };
        if !required && value && !POINTERS.contains(&path.as_str()) {
            shape = "value";
        }
    }
    Ok(Some(json!([field.number, name, kind, shape])))
}

/// A name without what the two sources write differently.
fn folded(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut result, word| {
        let mut letters = word.chars();
        result.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        result.push_str(letters.as_str());
        result
    })
}

/// All messages of the crate by their lower-case full name.
struct Messages {
    by_name: BTreeMap<String, Message>,
}

struct Message {
    name: String,
    fields: Vec<Field>,
}

struct Field {
    number: u32,
    name: String,
    kind: Kind,
    shape: &'static str,
}

enum Kind {
    Scalar(&'static str),
    Message(String),
}

impl Messages {
    fn read(root: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(folder) = pending.pop() {
            for item in fs::read_dir(root.join(&folder))? {
                let item = item?;
                if item.file_type()?.is_dir() {
                    pending.push(folder.join(item.file_name()));
                }
            }
            let file = root.join(&folder).join("mod.rs");
            if file.exists() {
                let package: Vec<_> = folder.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                for message in messages(&fs::read_to_string(&file)?, &package)
                    .with_context(|| format!("{}", file.display()))?
                {
                    by_name.insert(message.name.to_lowercase(), message);
                }
            }
        }
        // Types of another crate can look the same but for the numbers on the wire, which would then be missing.
        ensure!(
            by_name.values().any(|message| !message.fields.is_empty()),
            "{} holds no prost messages: name the `src` folder of the crate `k8s-pb`",
            root.display()
        );
        Ok(Self { by_name })
    }
}

/// The messages of one generated module. The text is rustfmt's, so a field is an attribute and then `pub name: type,`.
fn messages(text: &str, package: &[String]) -> Result<Vec<Message>> {
    let mut result: Vec<Message> = Vec::new();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split([' ', '{']).next().unwrap_or_default();
            result.push(Message { name: full_name(package, name), fields: Vec::new() });
        } else if line.starts_with("#[prost(") {
            let mut attribute = line.to_owned();
            while !attribute.ends_with(")]") {
                attribute.push_str(lines.next().context("an attribute that does not end")?);
            }
            let mut declaration = String::new();
            while !declaration.ends_with(',')
                || declaration.matches('<').count() > declaration.matches('>').count()
            {
                declaration.push_str(lines.next().context("a field that does not end")?);
            }
            let message = result.last_mut().context("a field outside of a message")?;
            message.fields.push(field(&attribute, &declaration, package)?);
        }
    }
    Ok(result)
}

fn field(attribute: &str, declaration: &str, package: &[String]) -> Result<Field> {
    let number = attribute.rsplit("tag = \"").next().and_then(|rest| rest.split('"').next());
    let number =
        number.and_then(|digits| digits.parse().ok()).with_context(|| format!("no number in {attribute}"))?;
    let (name, kind) = declaration
        .split_once(": ")
        .or_else(|| declaration.split_once(':'))
        .with_context(|| format!("field {declaration}"))?;
    let name = name.trim_start_matches("pub ").trim_start_matches("r#").to_owned();
    let inside = attribute.trim_start_matches("#[prost(");
    let map_value = inside.strip_prefix("btree_map = \"string, ").and_then(|rest| rest.split('"').next());
    let scalar = match map_value.unwrap_or_else(|| inside.split([',', ' ']).next().unwrap_or_default()) {
        "string" => Kind::Scalar("string"),
        "bool" => Kind::Scalar("bool"),
        "int32" | "int64" => Kind::Scalar("int"),
        "double" => Kind::Scalar("double"),
        "bytes" => Kind::Scalar("bytes"),
        "message" => Kind::Message(message_name(kind, package)?),
        other => bail!("unknown wire type {other} in {attribute}"),
    };
    let shape = if map_value.is_some() {
        "map"
    } else if inside.contains(" repeated,") {
        "list"
    } else {
        "one"
    };
    Ok(Field { number, name, kind: scalar, shape })
}

/// The message that a Rust type such as `Option<super::super::core::v1::Pod>` names.
fn message_name(kind: &str, package: &[String]) -> Result<String> {
    let innermost = kind.trim_end_matches([',', '>', ' ']).rsplit(['<', ',', ' ']).next().unwrap_or_default();
    let mut path = package.to_vec();
    let mut parts: Vec<_> = innermost.split("::").collect();
    let name = parts.pop().with_context(|| format!("type {kind}"))?;
    for part in parts {
        match part {
            "super" => drop(path.pop()),
            other => path.push(other.trim_start_matches("r#").to_owned()),
        }
    }
    Ok(full_name(&path, name))
}

/// `io.k8s.api.core.v1.Pod` for the module `api::core::v1`.
fn full_name(package: &[String], name: &str) -> String {
    let mut parts = vec!["io".to_owned(), "k8s".to_owned()];
    parts.extend(
        package
            .iter()
            .map(|part| if package.first() == Some(part) { part.replace('_', "-") } else { part.clone() }),
    );
    parts.push(name.to_owned());
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_of_generated_messages() {
        let text = r#"
            /// Pod is text.
            pub struct Pod {
                /// text
                #[prost(message, optional, tag = "1")]
                pub metadata:
                    ::core::option::Option<super::super::super::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
                #[prost(btree_map = "string, bytes", tag = "2")]
                pub r#data: ::prost::alloc::collections::BTreeMap<::prost::alloc::string::String, ::prost::alloc::vec::Vec<u8>>,
                #[prost(int32, repeated, packed = "false", tag = "12")]
                pub ports: ::prost::alloc::vec::Vec<i32>,
            }
        "#;
        let package: Vec<String> = ["api", "core", "v1"].map(str::to_owned).to_vec();
        let messages = messages(text, &package).unwrap();
        assert_eq!(messages[0].name, "io.k8s.api.core.v1.Pod");
        let fields = &messages[0].fields;
        assert!(
            matches!(&fields[0].kind, Kind::Message(name) if name == "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        );
        assert_eq!((fields[1].number, fields[1].name.as_str(), fields[1].shape), (2, "data", "map"));
        assert_eq!((fields[2].number, fields[2].shape), (12, "list"));
    }

    #[test]
    fn folders_without_prost_messages_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let definitions = folder.path().join("_definitions.json");
        fs::write(&definitions, r#"{"$defs": {}}"#).unwrap();
        let output = folder.path().join("catalogue");
        let source = folder.path().join("src");
        fs::create_dir_all(source.join("api/core/v1")).unwrap();
        let refused = || run(&definitions, &source, &output).unwrap_err().to_string();
        assert!(refused().ends_with("holds no prost messages: name the `src` folder of the crate `k8s-pb`"));
        // The same type without the numbers of its fields, as `k8s-openapi` has it.
        let plain = "pub struct Pod {\n    pub metadata: crate::ObjectMeta,\n}\n";
        fs::write(source.join("api/core/v1/mod.rs"), plain).unwrap();
        assert!(refused().contains("no prost messages"), "{}", refused());
        assert!(!output.exists(), "a refused run leaves no catalogue");
        fs::remove_dir_all(&source).unwrap();
        assert!(refused().contains(&source.display().to_string()), "{}", refused());
    }

    #[test]
    fn names_are_compared_without_their_spelling() {
        assert_eq!(folded("cluster_i_ps"), folded("clusterIPs"));
        assert_eq!(camel_case("type_meta"), "typeMeta");
    }
}
