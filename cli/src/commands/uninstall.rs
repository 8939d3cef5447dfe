//! `muster uninstall`: nothing of Muster is left in a cluster.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::{Instant, interval};

use crate::api;
use crate::connect::Connection;
use crate::error::{Error, USAGE};
use crate::install::{self, EXTENDER, MANAGED_BY, Place, Values, certificates};
use crate::kinds::{Kind, Kinds};
use crate::manifest::Document;
use crate::output;
use crate::roles::Role;
use crate::runtimes;

/// Pause between two looks whether an object is gone.
const EVERY: Duration = Duration::from_millis(100);
/// Plans are Muster's own and go with it; objects of the other kinds are people's.
const OWN_KIND: &str = "GangReservation";

/// Removes Muster from a cluster and leaves nothing
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster uninstall --kubeconfig ~/.kube/config\n  muster uninstall --yes --cascade    # training jobs and queues, too"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Ask nothing
    #[arg(long, short)]
    yes: bool,
    /// Delete the objects of Muster's kinds, too: training jobs with their pods, and queues
    #[arg(long)]
    cascade: bool,
    /// Longest wait in seconds until everything is gone
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    timeout: u64,
}

/// Something to delete.
struct Target {
    kind: Kind,
    name: String,
}

impl Target {
    fn label(&self) -> String {
        format!("{}/{}", self.kind.label(), self.name)
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = arguments.place.connect().await?;
    let kinds = Kinds::discover(&connection.client).await?;
    let definitions = install::definitions()?;
    let people = objects_of_people(&connection, &kinds, &definitions).await?;
    if !people.is_empty() && !arguments.cascade {
        return Err(Error::new(format!(
            "the cluster has {}, which would go with their definitions",
            people.join(", ")
        ))
        .with_hint("delete them first, or with --cascade; nothing was changed")
        .with_code(USAGE));
    }
    if !arguments.yes {
        confirm(&connection.namespace, &people)?;
    }
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let mut targets = targets(&connection.namespace, &kinds)?;
    if !namespace_is_ours(&connection).await? {
        targets.retain(|target| target.kind.resource.kind != "Namespace");
    }
    // Whoever acts goes first, definitions go last.
    let last = definitions.iter().filter_map(|document| target(&kinds, document));
    let (actors, others): (Vec<_>, Vec<_>) =
        targets.into_iter().partition(|target| target.kind.resource.kind == "Deployment");
    for target in &actors {
        delete(&connection, target, deadline).await?;
    }
    // Nobody is left who would let go of runtimes.
    runtimes::free(&connection.client, &kinds).await?;
    for target in others.into_iter().chain(last) {
        delete(&connection, &target, deadline).await?;
    }
    output::note("ok  nothing is left");
    Ok(())
}

/// How many objects of which kinds people have made.
async fn objects_of_people(
    connection: &Connection,
    kinds: &Kinds,
    definitions: &[Document],
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for definition in definitions {
        let names = &definition.object["spec"]["names"];
        let (group, kind) = (definition.object["spec"]["group"].as_str(), names["kind"].as_str());
        let version = definition.object["spec"]["versions"][0]["name"].as_str();
        let (Some(group), Some(kind), Some(version)) = (group, kind, version) else { continue };
        let Some(served) = kinds.of(&format!("{group}/{version}"), kind).filter(|_| kind != OWN_KIND) else {
            continue;
        };
        let list = api::get(&connection.client, &served.path(None, None)).await?;
        let shipped = runtimes::documents()?;
        let is_shipped = |item: &&Value| {
            let name = &item["metadata"]["name"];
            shipped.iter().any(|document| document.kind() == kind && *name == document.name())
        };
        let items = list["items"].as_array().into_iter().flatten();
        let count = items.filter(|item| !is_shipped(item)).count();
        if count > 0 {
            found.push(format!("{count} {}", served.resource.plural));
        }
    }
    Ok(found)
}

/// Asks the person at the terminal.
fn confirm(namespace: &str, people: &[String]) -> Result<(), Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new("nobody is there to ask").with_hint("--yes asks nothing").with_code(USAGE));
    }
    let with = if people.is_empty() { String::new() } else { format!(" with {}", people.join(", ")) };
    output::note(&format!(
        "Remove Muster from this cluster, the namespace {namespace} included{with}? [y/N]"
    ));
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Error::new("nothing was changed")) }
}

/// Everything but the definitions: Deployments before what they work with, the namespace after what is in it.
fn targets(namespace: &str, kinds: &Kinds) -> Result<Vec<Target>, Error> {
    let mut found: Vec<Target> =
        Values::everything_in(namespace)?.iter().filter_map(|document| target(kinds, document)).collect();
    found.extend(runtimes::documents()?.iter().filter_map(|document| target(kinds, document)));
    let mut add = |version: &str, kind: &str, name: &str| {
        if let Some(kind) = kinds.of(version, kind) {
            found.push(Target { kind: kind.clone(), name: name.to_owned() });
        }
    };
    for secret in certificates::secret_names() {
        add("v1", "Secret", &secret);
    }
    add("discovery.k8s.io/v1", "EndpointSlice", EXTENDER);
    for role in [Role::Trainer, Role::Scheduler, Role::Gates, Role::Extender] {
        add("coordination.k8s.io/v1", "Lease", role.lease());
    }
    let order = |target: &Target| match target.kind.resource.kind.as_str() {
        "Deployment" => 0,
        "Namespace" => 2,
        _ => 1,
    };
    found.sort_by_key(order);
    Ok(found)
}

fn target(kinds: &Kinds, document: &Document) -> Option<Target> {
    let kind = kinds.of(document.api_version(), document.kind())?.clone();
    Some(Target { kind, name: document.name().to_owned() })
}

async fn namespace_is_ours(connection: &Connection) -> Result<bool, Error> {
    let (label, ours) = MANAGED_BY;
    let path = format!("/api/v1/namespaces/{}", connection.namespace);
    let there = api::find(&connection.client, &path).await?.unwrap_or(Value::Null);
    Ok(there["metadata"]["labels"][label] == ours)
}

/// Deletes an object with what it owns, and waits until it is gone; one that is not there is fine.
async fn delete(connection: &Connection, target: &Target, deadline: Instant) -> Result<(), Error> {
    let (client, namespace) = (&connection.client, &connection.namespace);
    if api::delete(client, &target.kind, namespace, &target.name, "Foreground", None).await?.is_none() {
        return Ok(());
    }
    let path = target.kind.path(Some(namespace), Some(&target.name));
    let mut every = interval(EVERY);
    while api::find(client, &path).await?.is_some() {
        if Instant::now() >= deadline {
            return Err(Error::new(format!("{} does not go away", target.label()))
                .with_hint("its finalizers or what it owns hold it; run the command again later"));
        }
        every.tick().await;
    }
    output::note(&format!("    {} deleted", target.label()));
    Ok(())
}
