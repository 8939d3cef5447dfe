//! What the command line says when something goes wrong, and the exit code that scripts see.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use muster_machinery::{Hint, hint};

use crate::manifest::{self, Document};

/// Exit code of wrong usage, as clap uses it.
pub(crate) const USAGE: u8 = 2;

/// An error of a command.
#[derive(Debug)]
pub(crate) struct Error {
    message: String,
    hint: Option<String>,
    code: u8,
    /// The status code of the server's answer that this error tells.
    answered: Option<u16>,
}

impl Error {
    /// An error that exits with 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1, answered: None }
    }

    /// An error and its causes.
    pub(crate) fn from_source(context: &str, source: &dyn std::error::Error) -> Self {
        Self::new(format!("{context}: {}", hint::chain(source)))
    }

    /// The same with advice.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// What is wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The status code of the server's answer that this error tells.
    pub(crate) fn answered(&self) -> Option<u16> {
        self.answered
    }

    /// Whether the server knows no such object.
    pub(crate) fn is_not_found(&self) -> bool {
        self.answered == Some(404)
    }

    /// Whether the server has forgotten the version that was asked for.
    pub(crate) fn is_gone(&self) -> bool {
        self.answered == Some(410)
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// Fields of a document that do not hold what they should, each with its file and line.
    pub(crate) fn invalid<'a>(
        document: &Document,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let line =
            |(field, message): (&str, &str)| format!("{}: {field}: {message}", document.place_of(field));
        Self::new(fields.into_iter().map(line).collect::<Vec<_>>().join("\n"))
    }

    /// What the API server answered, said with the file and line of the fields it is about.
    pub(crate) fn rejected(document: &Document, status: &kube::core::Status) -> Self {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let fields: Vec<(&str, &str)> = causes
            .filter(|cause| !cause.field.is_empty() && cause.field != "<nil>")
            .map(|cause| (cause.field.as_str(), cause.message.as_str()))
            .collect();
        if !fields.is_empty() {
            return Self::invalid(document, fields);
        }
        let strict = strict_errors(&status.message);
        if !strict.is_empty() {
            let line = |(field, error): (&str, &str)| format!("{}: {error}", document.place_of(field));
            return Self::new(strict.into_iter().map(line).collect::<Vec<_>>().join("\n"))
                .with_hint("the field is misspelt or stands at the wrong indentation");
        }
        let about = |kind: &str| status.details.as_ref().is_some_and(|details| details.kind == kind);
        let field = if about("namespaces") { "metadata.namespace" } else { "metadata" };
        let message = format!("{}: {}", document.place_of(field), status.message);
        let error = Self { answered: Some(status.code), ..Self::new(message) };
        match status.code {
            403 => error.with_hint("the account of this kubeconfig may not do that"),
            404 if about("namespaces") => error.with_hint(
                "`kubectl create namespace NAME` makes one; without metadata.namespace the object goes where --namespace says",
            ),
            _ => error,
        }
    }
}

/// Field and text of each part of a message such as `…: strict decoding error: unknown field "a", unknown field "b"`.
fn strict_errors(message: &str) -> Vec<(&str, &str)> {
    let Some((_, list)) = message.split_once("strict decoding error: ") else { return Vec::new() };
    list.split(", ").map(|error| (error.split('"').nth(1).unwrap_or_default(), error)).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(formatter, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<manifest::Error> for Error {
    fn from(error: manifest::Error) -> Self {
        let text = Self::new(hint::chain(&error));
        match error.hint() {
            Some(hint) => text.with_hint(hint),
            None => text,
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let said = match status.code {
                    404 => status.message.clone(),
                    _ => format!("the server refused: {}", status.message),
                };
                Self { answered: Some(status.code), ..Self::new(said) }
            }
            other => Self::from_source("cannot talk to the cluster", &other)
                .with_hint("is it running? `muster up` starts the embedded one"),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::from_source("unexpected answer of the cluster", &error)
    }
}

/// A file that cannot be used, named.
pub(crate) fn unusable(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::new(format!("{}: {}", path.display(), hint::chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_strict_decoding_error_is_found() {
        let message = r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.a", duplicate field "b""#;
        assert_eq!(
            strict_errors(message),
            [("spec.a", r#"unknown field "spec.a""#), ("b", r#"duplicate field "b""#)]
        );
        assert_eq!(strict_errors(r#"no field "a""#), []);
    }

    #[test]
    fn a_hint_stands_on_its_own_line() {
        assert_eq!(Error::new("no").with_hint("try").to_string(), "no\nhint: try");
    }
}
