//! Logs on standard error, filtered by `MUSTER_LOG` (for example `info,muster_node=debug`).

use std::io::{self, IsTerminal};
use std::path::Path;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// The environment variable that sets the log filter.
pub const FILTER_VARIABLE: &str = "MUSTER_LOG";

/// The client of `kube` logs each failed connection as an error. Whoever called gets it too, and while an API server
/// starts again that is nothing a person must look at.
const QUIET: &str = "kube_client::client::builder=off";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Standard error.
    StandardError,
    /// Appended to a file.
    File(&'a Path),
}

/// Starts logging for the process; a second call changes nothing.
///
/// `default_filter` holds when [`FILTER_VARIABLE`] is not set, without the targets that only repeat what their callers
/// are told.
///
/// # Errors
/// When the log file cannot be opened.
pub fn init(format: Format, target: Target<'_>, default_filter: &str) -> io::Result<()> {
    let filter =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(quieted(default_filter)));
    let (writer, colours) = match target {
        Target::StandardError => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
        Target::File(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            (BoxMakeWriter::new(std::sync::Mutex::new(file)), false)
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    // An earlier subscriber, as tests install them, stays in place.
    let _already_set = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().try_init(),
    };
    Ok(())
}

fn quieted(default_filter: &str) -> String {
    format!("{default_filter},{QUIET}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quiet_is_a_filter() {
        for filter in ["error", "warn,muster=info"] {
            let parsed = EnvFilter::builder().parse(quieted(filter)).unwrap();
            assert!(parsed.to_string().contains(QUIET));
        }
    }
}
