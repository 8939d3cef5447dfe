//! `muster get`: objects as tables, JSON or YAML, once or as they change.

mod print;
mod watch;

use clap::Args;
use serde_json::Value;

use crate::api;
use crate::connect::{ClusterArguments, Connection};
use crate::error::{Error, USAGE};
use crate::kinds::{Kind, Kinds};
use crate::output::{self, Format};
use crate::targets::{self, Targets};

/// Shows objects of a kind, or one object
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster get pytorchjobs\n  muster get pods,pytorchjobs -o wide\n  muster get pytorchjob/digits -o yaml\n  muster get pods -A -l training.kubeflow.org/job-name=digits\n  muster get pods -w --field-selector status.phase=Running"
)]
pub(crate) struct Arguments {
    /// KIND[,KIND...], KIND NAME..., or KIND/NAME...
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Only objects with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only objects with these fields, such as status.phase=Running
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// Go on showing what changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Leave out the headings
    #[arg(long)]
    no_headers: bool,
    /// Show the labels as the last column
    #[arg(long)]
    show_labels: bool,
    /// An object that is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// What to ask the server for: a collection, or one object of it.
struct Query<'a> {
    kind: &'a Kind,
    namespace: Option<&'a str>,
    name: Option<String>,
    /// Selectors, encoded.
    parameters: Vec<String>,
}

impl Query<'_> {
    fn path(&self) -> String {
        let path = self.kind.path(self.namespace, self.name.as_deref());
        if self.parameters.is_empty() { path } else { format!("{path}?{}", self.parameters.join("&")) }
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let targets = Targets::parse(&arguments.targets)?;
    check(&arguments, &targets)?;
    let connection = &arguments.cluster.connect().await?;
    let kinds = Kinds::discover(&connection.client).await?;
    let queries = queries(&arguments, &targets, &kinds, connection)?;
    if arguments.watch {
        return match queries.as_slice() {
            [query] => watch::watch(&connection.client, query, &arguments).await,
            _ => Err(Error::new("only one kind, or one object, can be watched at a time").with_code(USAGE)),
        };
    }
    let mut answers: Vec<(&Kind, Value)> = Vec::new();
    let mut missing = Vec::new();
    for query in &queries {
        let answer = match arguments.output {
            Format::Table | Format::Wide => api::table(&connection.client, &query.path()).await,
            _ => api::get(&connection.client, &query.path()).await,
        };
        match answer {
            Ok(answer) => answers.push((query.kind, answer)),
            Err(error) if error.is_not_found() && query.name.is_some() => {
                missing.extend((!arguments.ignore_not_found).then(|| error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    let single = matches!(queries.as_slice(), [query] if query.name.is_some());
    let printed = print::all(&answers, &arguments, single)?;
    if !missing.is_empty() {
        return Err(Error::new(missing.join("\n")));
    }
    if !printed && !arguments.ignore_not_found {
        let somewhere = queries.iter().any(|query| query.kind.namespaced) && !arguments.all_namespaces;
        let place =
            if somewhere { format!(" in {} namespace.", connection.namespace) } else { String::new() };
        output::note(&format!("No resources found{place}"));
    }
    Ok(())
}

/// Options that do not go together.
fn check(arguments: &Arguments, targets: &Targets) -> Result<(), Error> {
    let problem = match targets {
        Targets::Named(_) if arguments.all_namespaces => {
            "an object by name is in one namespace: leave out -A"
        }
        Targets::Named(_) if arguments.selector.is_some() || arguments.field_selector.is_some() => {
            "give names or a selector, not both"
        }
        _ => return Ok(()),
    };
    Err(Error::new(problem).with_code(USAGE))
}

fn queries<'a>(
    arguments: &'a Arguments,
    targets: &Targets,
    kinds: &'a Kinds,
    connection: &'a Connection,
) -> Result<Vec<Query<'a>>, Error> {
    let namespace = (!arguments.all_namespaces).then_some(connection.namespace.as_str());
    match targets {
        Targets::Kinds(names) => {
            let parameters =
                api::selectors(arguments.selector.as_deref(), arguments.field_selector.as_deref());
            let query = |kind| Query { kind, namespace, name: None, parameters: parameters.clone() };
            Ok(targets::kinds_of(kinds, names)?.into_iter().map(query).collect())
        }
        Targets::Named(pairs) => {
            let query = |(kind, name): &(String, String)| {
                let kind = targets::kind_of(kinds, kind)?;
                Ok(Query { kind, namespace, name: Some(name.clone()), parameters: Vec::new() })
            };
            pairs.iter().map(query).collect()
        }
    }
}
