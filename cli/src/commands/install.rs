//! `muster install`: Muster into a cluster, and the proof that it works there.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::{self, Applied};
use crate::connect::Connection;
use crate::error::Error;
use crate::install::certificates::{self, Pair};
use crate::install::checks::{self, Reached};
use crate::install::{self, EXTENDER, Form, MANAGED_BY, Values};
use crate::kinds::Kinds;
use crate::manifest::{self, Document};
use crate::output;
use crate::roles::Role;
use crate::runtimes;

/// Installs Muster in a cluster and checks that it works
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster install --dry-run                        # the manifests, to read or to keep\n  muster install --kubeconfig ~/.kube/config --image registry.example/muster:0.1.0\n  muster install --form extender --image registry.example/muster:0.1.0"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    values: Values,
    /// Print what would be applied, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Longest wait in seconds until everything works
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    timeout: u64,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let (definitions, manifests) = (install::definitions()?, arguments.values.manifests()?);
    let runtimes = runtimes::documents()?;
    if arguments.dry_run {
        let text = [&definitions, &manifests, &runtimes].map(|documents| install::stream(documents));
        let text = text.into_iter().collect::<Result<String, _>>()?;
        if arguments.values.form == Form::Extender {
            output::note(&format!("beside these: the Secrets {}", certificates::secret_names().join(", ")));
        }
        return output::print(&text);
    }
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let connection = arguments.values.place.connect().await?;
    let version = checks::version(&connection.client).await?;
    done(&format!("the server has Kubernetes {version}"));
    let kinds = Kinds::discover(&connection.client).await?;
    let all: Vec<Document> = definitions.iter().chain(&manifests).cloned().collect();
    let (forbidden, asked) =
        checks::forbidden(&connection, &kinds, &all, &["get", "create", "patch"]).await?;
    if !forbidden.is_empty() {
        return Err(Error::new(format!("you may not {}", forbidden.join(", ")))
            .with_hint("an administrator of the cluster may; nothing was changed"));
    }
    done(&format!("you may do all {asked} things that it takes"));

    apply(&connection, &kinds, &definitions).await?;
    for definition in &definitions {
        checks::established(&connection.client, definition.name(), deadline).await?;
    }
    done(&format!("{} definitions are established", definitions.len()));
    // The kinds that have just been defined, too.
    let kinds = Kinds::discover(&connection.client).await?;
    apply(&connection, &kinds, &runtimes).await?;
    done(&format!("{} runtimes of training jobs are there", runtimes.len()));
    let (namespaces, others): (Vec<_>, Vec<_>) =
        manifests.into_iter().partition(|document| document.kind() == "Namespace");
    apply(&connection, &kinds, &ours_or_new(&connection, namespaces).await?).await?;
    let trust = match arguments.values.form {
        Form::Extender => Some(certify(&connection, &kinds).await?),
        Form::Binder => None,
    };
    apply(&connection, &kinds, &others).await?;
    for deployment in others.iter().filter(|document| document.kind() == "Deployment") {
        checks::available(&connection, deployment.name(), deadline).await?;
        done(&format!("the Deployment {} is available", deployment.name()));
    }
    let working = match arguments.values.form {
        Form::Binder => &[(Role::Trainer, "muster-controller"), (Role::Scheduler, "muster-controller")][..],
        Form::Extender => &[(Role::Trainer, "muster-controller"), (Role::Extender, EXTENDER)],
    };
    for (role, deployment) in working {
        checks::leads(&connection, role.lease(), deployment, deadline).await?;
        done(&format!("a replica of {deployment} leads as {}", role.lease()));
    }
    if let Some(trust) = trust {
        match checks::extender(&connection, &trust.caller, &trust.authority, deadline).await? {
            Reached::Answers(address) => done(&format!("the extender answers at {address}")),
            Reached::Elsewhere(address, why) => {
                done(&format!("the extender leads at {address}, which this machine cannot ask: {why}"));
            }
        }
        let namespace = &connection.namespace;
        output::note(&format!(
            "kube-scheduler needs one of the configurations in the ConfigMap {namespace}/muster-kube-scheduler, \
             and the files of the Secret {namespace}/{EXTENDER}-client"
        ));
    }
    Ok(())
}

fn done(what: &str) {
    output::note(&format!("ok  {what}"));
}

async fn apply(connection: &Connection, kinds: &Kinds, documents: &[Document]) -> Result<(), Error> {
    for document in documents {
        let (applied, _) = api::apply(connection, kinds, document).await?;
        if applied != Applied::Unchanged {
            let (kind, name) = (document.kind().to_lowercase(), document.name());
            output::note(&format!("    {kind}/{name} {}", applied.word()));
        }
    }
    Ok(())
}

/// A namespace that others made stays theirs.
async fn ours_or_new(connection: &Connection, namespaces: Vec<Document>) -> Result<Vec<Document>, Error> {
    let (label, ours) = MANAGED_BY;
    let path = format!("/api/v1/namespaces/{}", connection.namespace);
    let there = api::find(&connection.client, &path).await?;
    let others = there.is_some_and(|there| there["metadata"]["labels"][label] != ours);
    Ok(if others { Vec::new() } else { namespaces })
}

/// Whom the extender and kube-scheduler trust.
struct Trust {
    authority: String,
    caller: Pair,
}

/// Makes the certificates that are missing or run out, by the authority that is there.
async fn certify(connection: &Connection, kinds: &Kinds) -> Result<Trust, Error> {
    let now = Timestamp::now();
    let mut there = Vec::new();
    for name in certificates::secret_names() {
        let path = format!("/api/v1/namespaces/{}/secrets/{name}", connection.namespace);
        there.push(api::find(&connection.client, &path).await?.unwrap_or(Value::Null));
    }
    let kept = certificates::read(&there[0]).filter(|_| certificates::holds(&there[0], now));
    let renewed = kept.is_none();
    let authority = match kept {
        Some(kept) => kept,
        None => certificates::authority(now)?,
    };
    let fresh = certificates::secrets(&connection.namespace, &authority, now)?;
    let mut caller = certificates::read(&there[2]);
    for (there, mut fresh) in there.iter().zip(fresh) {
        if !renewed && certificates::holds(there, now) {
            continue;
        }
        // `data`, so that what is read back needs no second request.
        let text = std::mem::take(&mut fresh["stringData"]);
        for (key, value) in text.as_object().into_iter().flatten() {
            let bytes = value.as_str().unwrap_or_default().as_bytes().to_vec();
            fresh["data"][key] = serde_json::to_value(k8s_openapi::ByteString(bytes))?;
        }
        if let Some(fields) = fresh.as_object_mut() {
            fields.remove("stringData");
        }
        if fresh["metadata"]["name"] == certificates::secret_names()[2] {
            caller = certificates::read(&fresh);
        }
        let documents = manifest::parse(std::path::Path::new("certificates"), &fresh.to_string())?;
        apply(connection, kinds, &documents).await?;
    }
    let caller = caller.ok_or_else(|| Error::new("the certificate of kube-scheduler cannot be read back"))?;
    done("the extender and kube-scheduler have certificates");
    Ok(Trust { authority: authority.certificate, caller })
}
