//! `muster crds`: the kinds that Muster adds to a cluster, as manifests.

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::error::Error;
use crate::output;

/// Prints the CustomResourceDefinitions of Muster's kinds
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  muster crds | kubectl apply --server-side -f -")]
pub(crate) struct Arguments {}

/// All kinds, in a stable order.
pub(crate) fn all() -> Result<Vec<CustomResourceDefinition>, Error> {
    let broken = |error| Error::from_source("a kind's schema is broken, which is a bug", &error);
    let mut crds = muster_trainer_api::crds().map_err(broken)?;
    crds.extend(muster_trainer_api::train_job::crds().map_err(broken)?);
    crds.extend(muster_scheduler_api::crds());
    crds.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
    Ok(crds)
}

/// Of the embedded cluster: JobSet too, which other clusters have from its own project.
pub(crate) fn embedded() -> Result<Vec<CustomResourceDefinition>, Error> {
    let broken = |error| Error::from_source("a kind's schema is broken, which is a bug", &error);
    let mut crds = all()?;
    crds.push(muster_trainer_api::jobset::crd().map_err(broken)?);
    Ok(crds)
}

/// All kinds as one YAML stream.
pub(crate) fn text() -> Result<String, Error> {
    let mut text = String::new();
    for crd in all()? {
        let value = serde_json::to_value(&crd)?;
        text.push_str("---\n");
        text.push_str(&output::document(&value, output::Format::Yaml)?);
    }
    Ok(text)
}

/// Runs the command.
pub(crate) fn run(_: Arguments) -> Result<(), Error> {
    output::print(&text()?)
}
