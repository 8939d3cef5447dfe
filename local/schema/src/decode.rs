//! Strict decoding of request bodies: JSON or YAML into a value, and what Kubernetes would say about the value's
//! fields and types.
//!
//! A body passes three steps. [`decode_json`] or [`decode_yaml`] turn the text into a value and name the fields
//! that occur twice. [`check`] compares the value with its kind: it names unknown fields and the first value of a
//! wrong type. [`prune`] removes what Go's decoder would not keep: unknown fields and nulls.

mod check;
mod json;
mod prune;
mod scalars;
mod syntax;
mod way;

use std::cell::RefCell;

use serde::de::DeserializeSeed;
use serde_json::Value;

pub(crate) use check::go_kind;
pub use check::{Checked, check};
pub use json::whole_numbers;
pub use prune::prune;
use way::Way;

/// The largest body that is read, in bytes; Kubernetes' own limit.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// How many field problems are reported at most.
const MAX_PROBLEMS: usize = 100;

/// Why a text is not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body has more than [`MAX_BYTES`] bytes.
    #[error("Request entity too large: limit is {MAX_BYTES}")]
    TooLarge,
    /// The text is not JSON; the message is that of Go's parser.
    #[error("json parse error: {0}")]
    Json(String),
    /// The text is not YAML.
    #[error("yaml: {0}")]
    Yaml(String),
}

/// A field that occurs more than once in its object. The last value counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DuplicateField {
    /// Where the field is, such as `spec.containers[0].name`.
    pub path: String,
}

/// Reads a JSON body. Values may be nested 128 deep.
pub fn decode_json(text: &[u8]) -> Result<(Value, Vec<DuplicateField>), DecodeError> {
    if text.len() > MAX_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let found = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = json::Tracked { way: &Way::Root, found: &found }.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok((value, found.into_inner())),
        Err(error) => Err(DecodeError::Json(syntax::mistake(text).unwrap_or_else(|| error.to_string()))),
    }
}

/// Reads a YAML body of one document. Aliases are bounded, so that a small text cannot become a huge value.
pub fn decode_yaml(text: &[u8]) -> Result<(Value, Vec<DuplicateField>), DecodeError> {
    if text.len() > MAX_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let parse = |duplicate_keys| {
        let options = serde_saphyr::options! { duplicate_keys: duplicate_keys, with_snippet: false };
        serde_saphyr::from_slice_with_options::<Value>(text, options)
    };
    let strict = match parse(serde_saphyr::DuplicateKeyPolicy::Error) {
        Ok(value) => return Ok((value, Vec::new())),
        Err(error) => error,
    };
    // Without strictness the last of two equal keys counts. The parser names the first such key and no path.
    let value = parse(serde_saphyr::DuplicateKeyPolicy::LastWins);
    let value = value.map_err(|error| DecodeError::Yaml(error.to_string()))?;
    let path = match strict.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => key.clone(),
        other => other.to_string(),
    };
    Ok((value, vec![DuplicateField { path }]))
}

/// All field problems in Kubernetes' words, duplicates first: `unknown field "spec.x"`.
///
/// With `fieldValidation=Warn` each one is a warning (see [`warning`]); with `Strict` see [`strict_error`].
pub fn field_problems(duplicates: &[DuplicateField], unknown: &[String]) -> Vec<String> {
    let duplicates = duplicates.iter().map(|field| format!("duplicate field {:?}", field.path));
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    duplicates.chain(unknown).take(MAX_PROBLEMS).collect()
}

/// The reason that refuses a body with these problems, or nothing when there are none.
pub fn strict_error(problems: &[String]) -> Option<String> {
    (!problems.is_empty()).then(|| format!("strict decoding error: {}", problems.join(", ")))
}

/// The value of a `Warning` header with this text.
pub fn warning(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 10);
    quoted.push_str("299 - \"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push(' '),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// The answer to a body of a known kind that cannot be read.
pub fn cannot_be_handled(kind: &str, version: &str, expected: &str, reason: &str) -> String {
    format!("{kind} in version {version:?} cannot be handled as a {expected}: {reason}")
}

/// The answer to a body whose kind cannot even be read.
pub fn unrecognized(expected: &str, error: &DecodeError, body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let part = &body[..body.len().min(SHOWN)];
    let shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(part).into_owned(),
        Some(_) => part.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
    };
    let more = if body.len() > SHOWN { " ..." } else { "" };
    format!(
        "the object provided is unrecognized (must be of type {expected}): couldn't get version/kind; {error} ({shown}{more})"
    )
}

#[cfg(test)]
mod tests;
