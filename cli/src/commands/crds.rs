//! `muster crds`: the kinds that Muster adds to a cluster, as manifests.

use std::iter;

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use muster_trainer_api::schema::{self, Parts};
use muster_trainer_api::{jobset, train_job};

use crate::error::Error;
use crate::output;

/// Prints the CustomResourceDefinitions of Muster's kinds
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  muster crds | kubectl apply --server-side -f -")]
pub(crate) struct Arguments {}

/// Builds the definitions.
pub(crate) struct Definitions(Parts);

impl Definitions {
    /// Reads what they are made of.
    pub(crate) fn load() -> Result<Self, Error> {
        Parts::load().map(Self).map_err(|error| broken(&error))
    }

    /// Those of the embedded cluster: JobSet too, which other clusters have from its own project. Each is built when
    /// it is asked for.
    pub(crate) fn embedded(&self) -> impl Iterator<Item = Result<CustomResourceDefinition, Error>> {
        let job_set = iter::once_with(|| jobset::crd(&self.0).map_err(|error| broken(&error)));
        self.own().chain(job_set)
    }

    fn own(&self) -> impl Iterator<Item = Result<CustomResourceDefinition, Error>> {
        let training = muster_trainer_api::crds(&self.0).chain(train_job::crds(&self.0));
        let scheduling = muster_scheduler_api::crds().into_iter().map(Ok);
        training.map(|definition| definition.map_err(|error| broken(&error))).chain(scheduling)
    }
}

fn broken(error: &schema::Error) -> Error {
    Error::from_source("a kind's schema is broken, which is a bug", error)
}

/// All kinds, in a stable order.
fn all() -> Result<Vec<CustomResourceDefinition>, Error> {
    let mut crds: Vec<_> = Definitions::load()?.own().collect::<Result<_, _>>()?;
    crds.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
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
