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
}

impl Error {
    /// An error that exits with 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1 }
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

    /// The exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// What the API server answered, said with the file and line of the field it is about.
    pub(crate) fn rejected(document: &Document, status: &kube::core::Status) -> Self {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let mut places: Vec<String> = causes
            .filter(|cause| !cause.field.is_empty() && cause.field != "<nil>")
            .map(|cause| {
                let line = document.line_of(&cause.field);
                format!("{}:{line}: {}: {}", document.path.display(), cause.field, cause.message)
            })
            .collect();
        if places.is_empty() {
            let field = quoted_field(&status.message).unwrap_or("metadata");
            places.push(format!(
                "{}:{}: {}",
                document.path.display(),
                document.line_of(field),
                status.message
            ));
        }
        let error = Self::new(places.join("\n"));
        match status.code {
            400 if status.message.contains("unknown field") => {
                error.with_hint("the field is misspelt or stands at the wrong indentation")
            }
            403 => error.with_hint("the account of this kubeconfig may not do that"),
            404 => error.with_hint(format!(
                "does the cluster know the kind {} of {}? `muster crds | kubectl apply -f -` installs Muster's kinds",
                document.kind(),
                document.api_version()
            )),
            _ => error,
        }
    }
}

/// The field in a message such as `strict decoding error: unknown field "spec.nosuch"`.
fn quoted_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("field \"")?;
    let field = rest.split('"').next()?;
    // The offending name itself is in the file too, so its own line is found.
    (!field.is_empty()).then_some(field)
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
            kube::Error::Api(status) => Self::new(format!("the server refused: {}", status.message)),
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
    fn the_field_of_a_strict_decoding_error_is_found() {
        let message = r#"strict decoding error: unknown field "spec.nosuchfield""#;
        assert_eq!(quoted_field(message), Some("spec.nosuchfield"));
        assert_eq!(quoted_field("nothing quoted"), None);
    }

    #[test]
    fn a_hint_stands_on_its_own_line() {
        assert_eq!(Error::new("no").with_hint("try").to_string(), "no\nhint: try");
    }
}
