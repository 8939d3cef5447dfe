//! `muster version`.

use clap::Args;
use serde_json::{Value, json};

use crate::api;
use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::output::{self, Format};

/// Prints the version of Muster, and of the cluster when one answers
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Do not ask a cluster
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    // A version is worth printing without a cluster too.
    let connection = if arguments.client { None } else { arguments.cluster.connect().await.ok() };
    let server = match connection {
        Some(connection) => api::get(&connection.client, "/version").await.ok(),
        None => None,
    };
    let server = server.map_or(Value::Null, |version| version["gitVersion"].clone());
    if matches!(arguments.output, Format::Json | Format::Yaml) {
        let versions = json!({"muster": env!("CARGO_PKG_VERSION"), "server": server});
        return output::print(&output::document(&versions, arguments.output)?);
    }
    let cluster = server.as_str().map(|version| format!("cluster {version}\n")).unwrap_or_default();
    output::print(&format!("muster {}\n{cluster}", env!("CARGO_PKG_VERSION")))
}
