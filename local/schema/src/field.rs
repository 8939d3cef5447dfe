//! A problem with one field of an object, in the words Kubernetes uses.

use std::fmt;

use serde_json::Value;

/// What is wrong with a field; the names are those of `Status` causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The value breaks a rule.
    Invalid,
    /// The value has the wrong JSON type.
    TypeInvalid,
    /// The value is not one of an enumeration.
    NotSupported,
    /// The value is missing.
    Required,
    /// The value occurs twice.
    Duplicate,
    /// The value names something that does not exist.
    NotFound,
    /// The value may not be set here.
    Forbidden,
    /// The text is too long.
    TooLong,
    /// The list or map has too many entries.
    TooMany,
    /// The check itself failed.
    Internal,
}

impl ErrorKind {
    /// The `reason` of a `Status` cause, such as `FieldValueInvalid`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
        }
    }

    /// The words a message starts with.
    fn words(self) -> &'static str {
        match self {
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One problem with one field. `Display` prints it as Kubernetes does: `path: Invalid value: 0: detail`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// The field, such as `spec.parts[1].key`; `<nil>` for the object as a whole.
    pub path: String,
    /// What is wrong.
    pub kind: ErrorKind,
    /// The offending value, unless it is left out of the message.
    pub value: Option<Value>,
    /// What would be right.
    pub detail: String,
}

impl FieldError {
    /// A problem of any kind.
    pub fn new(
        path: impl Into<String>,
        kind: ErrorKind,
        value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        let path = path.into();
        let path = if path.is_empty() { "<nil>".to_owned() } else { path };
        Self { path, kind, value, detail: detail.into() }
    }

    /// A value that breaks a rule.
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Invalid, Some(value.into()), detail)
    }

    /// A value of the wrong JSON type; `value` names the type that was found.
    pub fn type_invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::TypeInvalid, Some(value.into()), detail)
    }

    /// A missing value.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Required, None, detail)
    }

    /// A value that may not be set.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Forbidden, None, detail)
    }

    /// A value that occurs twice.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(path, ErrorKind::Duplicate, Some(value.into()), "")
    }

    /// A value outside an enumeration.
    pub fn not_supported<'a>(
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let supported: Vec<String> = supported.into_iter().map(|text| format!("\"{text}\"")).collect();
        let detail = if supported.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", supported.join(", "))
        };
        Self::new(path, ErrorKind::NotSupported, Some(value.into()), detail)
    }

    /// A text of more than `bytes` bytes.
    pub fn too_long(path: impl Into<String>, bytes: u64) -> Self {
        let unit = if bytes == 1 { "byte" } else { "bytes" };
        Self::new(path, ErrorKind::TooLong, None, format!("may not be more than {bytes} {unit}"))
    }

    /// A list or map of `actual` entries where at most `maximum` are allowed.
    pub fn too_many(path: impl Into<String>, actual: u64, maximum: u64) -> Self {
        let unit = if maximum == 1 { "item" } else { "items" };
        let detail = format!("must have at most {maximum} {unit}");
        Self::new(path, ErrorKind::TooMany, Some(actual.into()), detail)
    }

    /// The message without the path, as a `Status` cause carries it.
    pub fn message(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if self.kind.shows_value()
            && let Some(value) = &self.value
        {
            text.push_str(": ");
            text.push_str(&value.to_string());
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// Whether this problem keeps the validation rules (CEL) from being checked.
    pub fn blocks_rules(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::NotSupported
                | ErrorKind::Required
                | ErrorKind::TooLong
                | ErrorKind::TooMany
                | ErrorKind::TypeInvalid
        )
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message())
    }
}

impl std::error::Error for FieldError {}

/// Joins errors as the message of a 422 `Status` does: one as it is, several in brackets, repeats once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// The path of a named field below `path`.
pub(crate) fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The path of an entry of a list below `path`.
pub(crate) fn index(path: &str, position: usize) -> String {
    format!("{path}[{position}]")
}

/// The path of an entry of a map below `path`.
pub(crate) fn key(path: &str, name: &str) -> String {
    format!("{path}[{name}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_kubernetes_does() {
        let error = FieldError::not_supported("spec.color", "blue", ["red", "green"]);
        assert_eq!(
            error.to_string(),
            r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#
        );
        assert_eq!(FieldError::required("spec", "").to_string(), "spec: Required value");
        assert_eq!(FieldError::too_long("n", 8).message(), "Too long: may not be more than 8 bytes");
        assert_eq!(FieldError::too_many("n", 3, 1).message(), "Too many: 3: must have at most 1 item");
        assert_eq!(FieldError::invalid("", Value::Null, "x").to_string(), "<nil>: Invalid value: null: x");
    }

    #[test]
    fn aggregates_without_repeats() {
        let error = FieldError::required("spec", "");
        assert_eq!(aggregate(std::slice::from_ref(&error)), "spec: Required value");
        assert_eq!(aggregate(&[error.clone(), error]), "spec: Required value");
    }
}
