//! Kubernetes' protobuf bodies (`application/vnd.kubernetes.protobuf`), read into JSON values.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` message that names the kind and holds the object.
//! The field numbers of every built-in kind come from the [catalogue](crate::catalogue); the few types whose
//! JSON form differs from their fields are in `special`.

mod special;
mod wire;

use serde_json::{Map, Value};

use crate::catalogue::{Catalogue, WireField, WireShape, WireType};
use wire::{Raw, Reader, WireError};

/// The first bytes of every protobuf body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// The media type of protobuf bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Messages may be nested this deep.
const MAX_DEPTH: usize = 100;

const ENVELOPE: &str = "io.k8s.apimachinery.pkg.runtime.Unknown";

/// An object from a protobuf body.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object's `apiVersion`, such as `apps/v1`.
    pub api_version: String,
    /// The object's `kind`.
    pub kind: String,
    /// The object in its JSON form, with `apiVersion` and `kind`.
    pub value: Value,
}

/// Why a protobuf body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The body does not begin with [`MAGIC`].
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// The envelope names no kind and the caller knows none.
    #[error("the body names no kind; send apiVersion and kind in its envelope")]
    NoKind,
    /// No built-in kind of this name; custom resources have no protobuf form.
    #[error("no kind {kind:?} is registered for version {api_version:?} in the protobuf form; send JSON")]
    UnknownKind {
        /// The `apiVersion` that was sent.
        api_version: String,
        /// The `kind` that was sent.
        kind: String,
    },
    /// The bytes break the protobuf format.
    #[error("proto: {message}: {error}")]
    Wire {
        /// The definition that was being read.
        message: String,
        /// What is wrong.
        error: WireError,
    },
    /// A field holds something that has no JSON form.
    #[error("proto: {message}: {reason}")]
    Value {
        /// The definition that was being read.
        message: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a body. `default_kind` (apiVersion, kind) stands in when the envelope names none, as the request's path
/// tells what is expected.
pub fn decode(body: &[u8], default_kind: Option<(&str, &str)>) -> Result<Decoded, ProtobufError> {
    decode_at(body, default_kind, 0)
}

fn decode_at(
    body: &[u8],
    default_kind: Option<(&str, &str)>,
    depth: usize,
) -> Result<Decoded, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let envelope = Envelope::read(envelope).map_err(|error| wire_error(ENVELOPE, error))?;
    let (mut api_version, mut kind) = (envelope.api_version, envelope.kind);
    if let Some((default_version, default_kind)) = default_kind {
        if api_version.is_empty() {
            default_version.clone_into(&mut api_version);
        }
        if kind.is_empty() {
            default_kind.clone_into(&mut kind);
        }
    }
    if kind.is_empty() {
        return Err(ProtobufError::NoKind);
    }
    let mut value = if envelope.content_type == "application/json" {
        serde_json::from_slice(envelope.raw).map_err(|error| value_error(ENVELOPE, error))?
    } else {
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let catalogue = Catalogue::get();
        let Some(name) = catalogue.definition_name(group, version, &kind) else {
            return Err(ProtobufError::UnknownKind { api_version, kind });
        };
        message(catalogue, &name, envelope.raw, depth)?
    };
    if let Value::Object(object) = &mut value {
        object.insert("apiVersion".into(), api_version.as_str().into());
        object.insert("kind".into(), kind.as_str().into());
    }
    Ok(Decoded { api_version, kind, value })
}

/// The parts of `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
    content_type: String,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut result = Self::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.next()? {
            match number {
                1 => {
                    let mut types = Reader::new(raw.bytes()?);
                    while let Some((number, raw)) = types.next()? {
                        match number {
                            1 => raw.string()?.clone_into(&mut result.api_version),
                            2 => raw.string()?.clone_into(&mut result.kind),
                            _ => {}
                        }
                    }
                }
                2 => result.raw = raw.bytes()?,
                4 => raw.string()?.clone_into(&mut result.content_type),
                _ => {}
            }
        }
        Ok(result)
    }
}

fn wire_error(message: &str, error: WireError) -> ProtobufError {
    ProtobufError::Wire { message: message.to_owned(), error }
}

fn value_error(message: &str, reason: impl ToString) -> ProtobufError {
    ProtobufError::Value { message: message.to_owned(), reason: reason.to_string() }
}

/// Reads the message of definition `name`.
fn message(catalogue: &Catalogue, name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(value_error(name, format!("messages are nested deeper than {MAX_DEPTH}")));
    }
    if let Some(value) = special::decode(catalogue, name, bytes, depth)? {
        return Ok(value);
    }
    let mut object = Map::new();
    fields(catalogue, name, bytes, depth, &mut object)?;
    Ok(Value::Object(object))
}

/// Reads the fields of a message into `object`.
fn fields(
    catalogue: &Catalogue,
    name: &str,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    let Some(message) = catalogue.message(name) else {
        return Err(value_error(name, "the type has no protobuf form"));
    };
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next().map_err(|error| wire_error(name, error))? {
        // A field of a newer or older version is skipped, as protobuf demands.
        let Some(field) = message.field(number) else { continue };
        match field.shape {
            WireShape::One | WireShape::Value => {
                let value = single(catalogue, name, field, raw, depth)?;
                let unset = value.is_null() || (field.shape == WireShape::Value && is_zero(&value));
                if !unset {
                    object.insert(field.name.clone(), value);
                }
            }
            WireShape::List => {
                let list = object.entry(field.name.as_str()).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { continue };
                match raw {
                    Raw::Bytes(packed) if field.kind == WireType::Integer => {
                        let mut reader = Reader::new(packed);
                        while let Some(number) = reader.packed().map_err(|error| wire_error(name, error))? {
                            list.push(number.into());
                        }
                    }
                    raw => list.push(single(catalogue, name, field, raw, depth)?),
                }
            }
            WireShape::Map => {
                let (key, value) = map_entry(catalogue, name, field, raw, depth)?;
                let map = object.entry(field.name.as_str()).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
            WireShape::Inline => {
                let (WireType::Message(inner), Ok(bytes)) = (&field.kind, raw.bytes()) else { continue };
                if depth >= MAX_DEPTH {
                    return Err(value_error(name, format!("messages are nested deeper than {MAX_DEPTH}")));
                }
                fields(catalogue, inner, bytes, depth + 1, object)?;
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn single(
    catalogue: &Catalogue,
    name: &str,
    field: &WireField,
    raw: Raw<'_>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    let wire = |error| wire_error(&format!("{name}.{}", field.name), error);
    Ok(match &field.kind {
        WireType::String => raw.string().map_err(wire)?.into(),
        WireType::Bool => (raw.varint().map_err(wire)? != 0).into(),
        WireType::Integer => (raw.varint().map_err(wire)? as i64).into(),
        // Not a number and the infinities have no JSON form.
        WireType::Double => raw.double().map_err(wire)?.into(),
        WireType::Bytes => special::base64(raw.bytes().map_err(wire)?),
        WireType::Message(inner) => message(catalogue, inner, raw.bytes().map_err(wire)?, depth + 1)?,
    })
}

/// A map entry is a message of its own: the key is field 1, the value field 2, and either may be left out.
fn map_entry(
    catalogue: &Catalogue,
    name: &str,
    field: &WireField,
    raw: Raw<'_>,
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    let wire = |error| wire_error(&format!("{name}.{}", field.name), error);
    let mut reader = Reader::new(raw.bytes().map_err(wire)?);
    let (mut key, mut value) = (String::new(), None);
    while let Some((number, raw)) = reader.next().map_err(wire)? {
        match number {
            1 => raw.string().map_err(wire)?.clone_into(&mut key),
            2 => value = Some(single(catalogue, name, field, raw, depth)?),
            _ => {}
        }
    }
    let value = match (value, &field.kind) {
        (Some(value), _) => value,
        (None, WireType::Message(inner)) => message(catalogue, inner, &[], depth + 1)?,
        (None, WireType::String | WireType::Bytes) => "".into(),
        (None, WireType::Bool) => false.into(),
        (None, WireType::Integer | WireType::Double) => 0.into(),
    };
    Ok((key, value))
}

#[cfg(test)]
mod tests;
