//! `muster submit`: applies a manifest and returns.

use std::path::PathBuf;

use clap::Args;

use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::kinds::Kinds;
use crate::manifest::Document;
use crate::{api, manifest, output};

/// Applies a manifest and returns; `muster run` stays with the job
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  muster submit job.yaml\n  muster submit -   # from standard input")]
pub(crate) struct Arguments {
    /// The manifest; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let documents = manifest::read(&arguments.file)?;
    let kinds = Kinds::discover(&connection.client).await?;
    api::validate(connection, &kinds, &documents).await?;
    for document in supports_first(documents) {
        let (applied, object) = api::apply(connection, &kinds, &document).await?;
        let label = kinds
            .of(document.api_version(), document.kind())
            .map(crate::kinds::Kind::label)
            .unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        output::print(&format!("{label}/{name} {}\n", applied.word()))?;
    }
    Ok(())
}

/// What jobs need (configuration, claims, queues) before the jobs themselves, so that nothing waits for it.
pub(crate) fn supports_first(mut documents: Vec<Document>) -> Vec<Document> {
    documents.sort_by_key(|document| match document.kind() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "Secret" | "ConfigMap" | "PersistentVolume" | "PersistentVolumeClaim" => 2,
        "Service" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" | "PriorityClass" => 3,
        _ => 4,
    });
    documents
}
