//! `muster delete`: objects by name or by manifest, waiting until they are gone.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kube::Api;
use kube::core::DynamicObject;
use kube::runtime::wait::{await_condition, conditions};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::api;
use crate::connect::{ClusterArguments, Connection};
use crate::error::{Error, USAGE};
use crate::kinds::{Kind, Kinds};
use crate::targets::{self, Targets};
use crate::waiting::WaitArguments;
use crate::{manifest, output};

/// Deletes objects and waits until they are gone
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster delete pytorchjob/digits\n  muster delete -f examples/digits/pytorchjob.yaml\n  muster delete pods -l app=web\n  muster delete pod digits-worker-0 --grace-period 0"
)]
pub(crate) struct Arguments {
    /// KIND NAME..., KIND/NAME..., or KIND[,KIND...] with --all or --selector
    #[arg(required_unless_present = "filename", conflicts_with = "filename", value_name = "TARGET")]
    targets: Vec<String>,
    /// Delete what this manifest names
    #[arg(long, short, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// Delete all objects of the kind in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Delete the objects of the kind with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// Seconds that processes get to end by themselves
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// What becomes of the objects that these own
    #[arg(long, value_enum, default_value_t)]
    cascade: Cascade,
    /// An object that is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    waiting: WaitArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Cascade {
    /// They go afterwards
    #[default]
    Background,
    /// They go first
    Foreground,
    /// They stay
    Orphan,
}

impl Cascade {
    fn policy(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// An object to delete.
struct Doomed<'a> {
    kind: &'a Kind,
    namespace: String,
    name: String,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let kinds = Kinds::discover(&connection.client).await?;
    let doomed = doomed(&arguments, &kinds, connection).await?;
    if doomed.is_empty() {
        output::note("No resources found");
    }
    let (mut going, mut missing) = (Vec::new(), Vec::new());
    for object in &doomed {
        let Doomed { kind, namespace, name } = object;
        let policy = arguments.cascade.policy();
        let answer =
            api::delete(&connection.client, kind, namespace, name, policy, arguments.grace_period).await?;
        match answer {
            Some(deleted) => {
                output::print(&format!("{} \"{name}\" deleted\n", kind.label()))?;
                going.push((object, deleted));
            }
            None if arguments.ignore_not_found => {}
            None => missing.push(format!("{} \"{name}\" not found", kind.label())),
        }
    }
    if let Some(patience) = arguments.waiting.patience() {
        let deadline = Instant::now() + patience;
        for (Doomed { kind, namespace, name }, deleted) in going {
            wait_until_gone(connection, kind, namespace, name, &deleted, deadline).await?;
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::new(missing.join("\n"))) }
}

/// The objects that the command line names.
async fn doomed<'a>(
    arguments: &Arguments,
    kinds: &'a Kinds,
    connection: &Connection,
) -> Result<Vec<Doomed<'a>>, Error> {
    let here = || connection.namespace.clone();
    if let Some(path) = &arguments.filename {
        let object = |document: manifest::Document| {
            let kind = kinds
                .of(document.api_version(), document.kind())
                .ok_or_else(|| api::unknown_kind(kinds, &document))?;
            let namespace = document.namespace().map_or_else(here, str::to_owned);
            Ok(Doomed { kind, namespace, name: document.name().to_owned() })
        };
        return manifest::read(path)?.into_iter().map(object).collect();
    }
    let selects = arguments.all || arguments.selector.is_some();
    match Targets::parse(&arguments.targets)? {
        Targets::Named(_) if selects => {
            Err(Error::new("give names, --all or a selector, not several of them").with_code(USAGE))
        }
        Targets::Named(pairs) => pairs
            .into_iter()
            .map(|(kind, name)| Ok(Doomed { kind: targets::kind_of(kinds, &kind)?, namespace: here(), name }))
            .collect(),
        Targets::Kinds(names) if !selects => {
            let names = names.join(",");
            Err(Error::new(format!("which {names}?"))
                .with_hint(format!("say `muster delete {names} NAME`, or --all, or -l SELECTOR"))
                .with_code(USAGE))
        }
        Targets::Kinds(names) => {
            let mut all = Vec::new();
            for kind in targets::kinds_of(kinds, &names)? {
                let parameters = api::selectors(arguments.selector.as_deref(), None);
                let path =
                    format!("{}?{}", kind.path(Some(&connection.namespace), None), parameters.join("&"));
                let list = api::get(&connection.client, &path).await?;
                let names = list["items"].as_array().into_iter().flatten();
                all.extend(names.filter_map(|object| {
                    let name = object["metadata"]["name"].as_str()?.to_owned();
                    Some(Doomed { kind, namespace: here(), name })
                }));
            }
            Ok(all)
        }
    }
}

/// Waits until the object is gone, or its deadline. `deleted` is the server's answer to the deletion: an object of
/// the same name that came afterwards is not waited for.
pub(crate) async fn wait_until_gone(
    connection: &Connection,
    kind: &Kind,
    namespace: &str,
    name: &str,
    deleted: &Value,
    deadline: Instant,
) -> Result<(), Error> {
    // A finished deletion answers with a status that tells the uid, one under way with the object.
    let Some(uid) = deleted["metadata"]["uid"].as_str() else { return Ok(()) };
    let client = connection.client.clone();
    let objects: Api<DynamicObject> = if kind.namespaced {
        Api::namespaced_with(client, namespace, &kind.resource)
    } else {
        Api::all_with(client, &kind.resource)
    };
    match timeout_at(deadline, await_condition(objects, name, conditions::is_deleted(uid))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::from_source("cannot see whether it is gone", &error)),
        Err(_) => Err(Error::new(format!("{}/{name} is still there", kind.label()))
            .with_hint("a finalizer or a process that does not end holds it; see `muster describe`")),
    }
}
