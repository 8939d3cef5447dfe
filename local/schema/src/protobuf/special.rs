//! Types whose JSON form is not an object of their protobuf fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::wire::{Raw, Reader, WireError};
use super::{MAGIC, ProtobufError, decode_at, message, value_error, wire_error};
use crate::catalogue::Catalogue;

/// The JSON form of a special type, or nothing when `name` is an ordinary message. `null` means "not set".
pub(super) fn decode(
    catalogue: &Catalogue,
    name: &str,
    bytes: &[u8],
    depth: usize,
) -> Result<Option<Value>, ProtobufError> {
    let wire = |error| wire_error(name, error);
    let value = match name.strip_prefix("io.k8s.").unwrap_or(name) {
        "apimachinery.pkg.util.intstr.IntOrString" => int_or_string(bytes).map_err(wire)?,
        "apimachinery.pkg.api.resource.Quantity" => {
            let text = last(bytes, 1).map_err(wire)?.map(Raw::string).transpose().map_err(wire)?;
            text.filter(|text| !text.is_empty()).unwrap_or("0").into()
        }
        "apimachinery.pkg.apis.meta.v1.Time" => time(name, bytes, Precision::Seconds)?,
        "apimachinery.pkg.apis.meta.v1.MicroTime" => time(name, bytes, Precision::Microseconds)?,
        "apimachinery.pkg.runtime.RawExtension"
        | "apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => embedded(name, bytes, depth)?,
        "api.authentication.v1.ExtraValue"
        | "api.authorization.v1.ExtraValue"
        | "api.certificates.v1.ExtraValue"
        | "apimachinery.pkg.apis.meta.v1.Verbs" => strings(bytes, 1).map_err(wire)?,
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => {
            match last(bytes, 2).map_err(wire)? {
                Some(schema) => json_schema(catalogue, name, schema, depth)?,
                None => last(bytes, 1).map_err(wire)?.is_some_and(|raw| raw.varint() == Ok(1)).into(),
            }
        }
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => {
            if let Some(schema) = last(bytes, 1).map_err(wire)? {
                json_schema(catalogue, name, schema, depth)?
            } else {
                let schemas = all(bytes, 2).map_err(wire)?.into_iter();
                schemas
                    .map(|raw| json_schema(catalogue, name, raw, depth))
                    .collect::<Result<Vec<_>, _>>()?
                    .into()
            }
        }
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            match last(bytes, 1).map_err(wire)? {
                Some(schema) => json_schema(catalogue, name, schema, depth)?,
                None => strings(bytes, 2).map_err(wire)?,
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// Bytes in their JSON form.
pub(super) fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

fn json_schema(
    catalogue: &Catalogue,
    name: &str,
    raw: Raw<'_>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    let bytes = raw.bytes().map_err(|error| wire_error(name, error))?;
    message(
        catalogue,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        bytes,
        depth + 1,
    )
}

/// Every value of field `wanted`.
fn all(bytes: &[u8], wanted: u32) -> Result<Vec<Raw<'_>>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some((number, raw)) = reader.next()? {
        if number == wanted {
            found.push(raw);
        }
    }
    Ok(found)
}

/// The last value of field `wanted`, which is the one that counts.
fn last(bytes: &[u8], wanted: u32) -> Result<Option<Raw<'_>>, WireError> {
    Ok(all(bytes, wanted)?.pop())
}

fn strings(bytes: &[u8], field: u32) -> Result<Value, WireError> {
    let items: Result<Vec<Value>, _> =
        all(bytes, field)?.into_iter().map(|raw| raw.string().map(Value::from)).collect();
    items.map(Value::Array)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, WireError> {
    let is_string = last(bytes, 1)?.map(Raw::varint).transpose()?.unwrap_or_default() == 1;
    Ok(if is_string {
        last(bytes, 3)?.map(Raw::string).transpose()?.unwrap_or_default().into()
    } else {
        (last(bytes, 2)?.map(Raw::varint).transpose()?.unwrap_or_default() as i64).into()
    })
}

#[derive(Clone, Copy)]
enum Precision {
    Seconds,
    Microseconds,
}

/// Seconds and nanoseconds since 1970 as RFC 3339; an empty message is Go's zero time, which is not set.
fn time(name: &str, bytes: &[u8], precision: Precision) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let number = |field| -> Result<i64, WireError> {
        Ok(last(bytes, field)?.map(Raw::varint).transpose()?.unwrap_or_default() as i64)
    };
    let wire = |error| wire_error(name, error);
    let seconds = number(1).map_err(wire)?;
    let nanoseconds = number(2).map_err(wire)?;
    let nanoseconds = i32::try_from(nanoseconds).map_err(|error| value_error(name, error))?;
    let invalid = |error| value_error(name, error);
    Ok(match precision {
        // Kubernetes ignores the fraction of a second here, because its JSON form has none.
        Precision::Seconds => Timestamp::from_second(seconds).map_err(invalid)?.to_string().into(),
        Precision::Microseconds => {
            let time = Timestamp::new(seconds, nanoseconds).map_err(invalid)?;
            time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
        }
    })
}

/// JSON inside of protobuf, or (in `RawExtension`) another protobuf body.
fn embedded(name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let wire = |error| wire_error(name, error);
    let Some(raw) = last(bytes, 1).map_err(wire)? else { return Ok(Value::Null) };
    let raw = raw.bytes().map_err(wire)?;
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if raw.starts_with(MAGIC) {
        if depth >= super::MAX_DEPTH {
            return Err(value_error(name, "bodies are nested too deep"));
        }
        return Ok(decode_at(raw, None, depth + 1)?.value);
    }
    serde_json::from_slice(raw).map_err(|error| value_error(name, error))
}
