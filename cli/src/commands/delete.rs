//! `muster delete`: objects by name or by manifest, waiting until they are gone.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use crate::api;
use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;
use crate::kinds::{Kind, Kinds};
use crate::{manifest, output};

/// Deletes objects and waits until they are gone
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster delete pytorchjob/digits\n  muster delete -f examples/digits/pytorchjob.yaml\n  muster delete pod digits-worker-0 --grace-period 0"
)]
pub(crate) struct Arguments {
    /// KIND/NAME, or KIND NAME...
    #[arg(required_unless_present = "filename")]
    targets: Vec<String>,
    /// Delete what this manifest names
    #[arg(long, short, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// Seconds that processes get to end by themselves
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Return without waiting
    #[arg(long)]
    no_wait: bool,
    /// Longest wait in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let kinds = Kinds::discover(&connection.client).await?;
    let targets = targets(&arguments, &kinds, connection)?;
    let mut missing = Vec::new();
    for (kind, namespace, name) in &targets {
        let policy = "Background";
        if api::delete(&connection.client, kind, namespace, name, policy, arguments.grace_period).await? {
            output::print(&format!("{} \"{name}\" deleted\n", kind.label()))?;
        } else {
            missing.push(format!("{} \"{name}\" not found", kind.label()));
        }
    }
    if !arguments.no_wait {
        let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
        for (kind, namespace, name) in &targets {
            wait_until_gone(connection, kind, namespace, name, deadline).await?;
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::new(missing.join("\n"))) }
}

type Target<'a> = (&'a Kind, String, String);

fn targets<'a>(
    arguments: &Arguments,
    kinds: &'a Kinds,
    connection: &Connection,
) -> Result<Vec<Target<'a>>, Error> {
    let mut targets = Vec::new();
    if let Some(path) = &arguments.filename {
        for document in manifest::read(path)? {
            let namespace = document.namespace().unwrap_or(&connection.namespace).to_owned();
            if let Some(kind) = kinds.of(document.api_version(), document.kind()) {
                targets.push((kind, namespace, document.name().to_owned()));
            }
        }
    }
    let mut words = arguments.targets.iter().peekable();
    while let Some(word) = words.next() {
        if let Some((kind, name)) = word.split_once('/') {
            targets.push((single(kinds, kind)?, connection.namespace.clone(), name.to_owned()));
            continue;
        }
        let kind = single(kinds, word)?;
        let before = targets.len();
        while let Some(name) = words.next_if(|next| !next.contains('/')) {
            targets.push((kind, connection.namespace.clone(), name.clone()));
        }
        if targets.len() == before {
            return Err(
                Error::new(format!("which {word}?")).with_hint(format!("say `muster delete {word} NAME`"))
            );
        }
    }
    Ok(targets)
}

fn single<'a>(kinds: &'a Kinds, name: &str) -> Result<&'a Kind, Error> {
    kinds
        .named(name)?
        .into_iter()
        .next()
        .ok_or_else(|| Error::new(format!("the cluster has no kind `{name}`")))
}

/// Waits until the object is gone, or its deadline.
pub(crate) async fn wait_until_gone(
    connection: &Connection,
    kind: &Kind,
    namespace: &str,
    name: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let path = kind.path(Some(namespace), Some(name));
    while api::find(&connection.client, &path).await?.is_some() {
        if Instant::now() >= deadline {
            return Err(Error::new(format!("{}/{name} is still there", kind.label()))
                .with_hint("a finalizer or a process that does not end holds it; see `muster describe`"));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
