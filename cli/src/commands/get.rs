//! `muster get`: objects as tables, JSON or YAML.

use clap::Args;
use serde_json::{Value, json};

use crate::api;
use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;
use crate::kinds::{Kind, Kinds};
use crate::output::{self, Format, Table};

/// Shows objects of a kind, or one object
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster get pytorchjobs\n  muster get pods -o wide\n  muster get pytorchjob/digits -o yaml\n  muster get pods -A -l training.kubeflow.org/job-name=digits"
)]
pub(crate) struct Arguments {
    /// The kind, or KIND/NAME
    kind: String,
    /// Names; all objects of the kind when left out
    names: Vec<String>,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Only objects with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Leave out the headings
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let kinds = Kinds::discover(&connection.client).await?;
    let (kind_name, mut names) = match arguments.kind.split_once('/') {
        Some((kind, name)) => (kind.to_owned(), vec![name.to_owned()]),
        None => (arguments.kind.clone(), Vec::new()),
    };
    names.extend(arguments.names.iter().cloned());
    let kinds = kinds.named(&kind_name)?;
    let several = kinds.len() > 1;
    let mut printed = false;
    for kind in kinds {
        let paths = paths(kind, &arguments, connection, &names);
        let mut answers = Vec::new();
        for path in paths {
            answers.push(match arguments.output {
                Format::Table | Format::Wide => api::table(&connection.client, &path).await?,
                _ => api::get(&connection.client, &path).await?,
            });
        }
        printed |= print(kind, &arguments, answers, several, !names.is_empty(), printed)?;
    }
    if !printed && arguments.output != Format::Json && arguments.output != Format::Yaml {
        let place = format!(" in {} namespace.", connection.namespace);
        output::note(&format!("No resources found{}", if arguments.all_namespaces { "" } else { &place }));
    }
    Ok(())
}

fn paths(kind: &Kind, arguments: &Arguments, connection: &Connection, names: &[String]) -> Vec<String> {
    let namespace = (!arguments.all_namespaces).then_some(connection.namespace.as_str());
    if names.is_empty() {
        let mut path = kind.path(namespace, None);
        if let Some(selector) = &arguments.selector {
            let encoded = percent_encoding::utf8_percent_encode(selector, percent_encoding::NON_ALPHANUMERIC);
            path = format!("{path}?labelSelector={encoded}");
        }
        return vec![path];
    }
    names.iter().map(|name| kind.path(Some(&connection.namespace), Some(name))).collect()
}

/// Whether anything was printed.
fn print(
    kind: &Kind,
    arguments: &Arguments,
    answers: Vec<Value>,
    several: bool,
    single: bool,
    after_others: bool,
) -> Result<bool, Error> {
    match arguments.output {
        Format::Json | Format::Yaml => {
            let value = match (single, answers.len()) {
                (true, 1) | (false, _) => answers.into_iter().next().unwrap_or_default(),
                _ => json!({"apiVersion": "v1", "kind": "List", "items": answers}),
            };
            output::print(&output::document(&value, arguments.output)?)?;
            Ok(true)
        }
        Format::Name => {
            let one = |object: &Value| {
                format!("{}/{}\n", kind.label(), object["metadata"]["name"].as_str().unwrap_or_default())
            };
            let text: String = answers
                .iter()
                .flat_map(|answer| {
                    answer["items"].as_array().cloned().unwrap_or_else(|| vec![answer.clone()])
                })
                .map(|object| one(&object))
                .collect();
            output::print(&text)?;
            Ok(!text.is_empty())
        }
        Format::Table | Format::Wide => {
            let Some(mut merged) = merge(answers) else { return Ok(false) };
            if several {
                prefix_names(&mut merged, &kind.label());
            }
            let mut table = Table::from_server(&merged, arguments.output == Format::Wide);
            if arguments.all_namespaces && kind.namespaced {
                let namespaces = rows(&merged)
                    .iter()
                    .map(|row| text_of(&row["object"]["metadata"]["namespace"]))
                    .collect::<Vec<_>>();
                table.prefix("NAMESPACE", namespaces);
            }
            let gap = if after_others { "\n" } else { "" };
            output::print(&format!("{gap}{}", table.render(!arguments.no_headers)))?;
            Ok(true)
        }
    }
}

fn rows(table: &Value) -> &[Value] {
    table["rows"].as_array().map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// One table of all answers; `None` without a row.
fn merge(answers: Vec<Value>) -> Option<Value> {
    let mut answers = answers.into_iter();
    let mut first = answers.next()?;
    for answer in answers {
        let more = rows(&answer).to_vec();
        first["rows"].as_array_mut()?.extend(more);
    }
    (!rows(&first).is_empty()).then_some(first)
}

fn prefix_names(table: &mut Value, label: &str) {
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        let name = text_of(&row["cells"][0]);
        row["cells"][0] = Value::String(format!("{label}/{name}"));
    }
}
