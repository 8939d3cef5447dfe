//! How the answers of `muster get` are printed.

use serde_json::{Value, json};

use super::Arguments;
use crate::error::Error;
use crate::kinds::Kind;
use crate::output::{self, Format, Table};

/// Prints all answers; whether there was anything to print. `single` when one object was asked for by name.
pub(super) fn all(answers: &[(&Kind, Value)], arguments: &Arguments, single: bool) -> Result<bool, Error> {
    match arguments.output {
        Format::Json | Format::Yaml => {
            let value = match (single, answers) {
                (true, []) => return Ok(false),
                (true, [(_, object), ..]) => object.clone(),
                _ => list(answers),
            };
            output::print(&output::document(&value, arguments.output)?)?;
            Ok(true)
        }
        Format::Name => {
            let names = answers.iter().flat_map(|(kind, answer)| {
                objects(answer).into_iter().map(|object| name_line(kind, object)).collect::<Vec<_>>()
            });
            let text: String = names.collect();
            output::print(&text)?;
            Ok(!text.is_empty())
        }
        Format::Table | Format::Wide => {
            let tables = by_kind(answers);
            let several = tables.len() > 1;
            let tables: Vec<String> = tables
                .into_iter()
                .filter(|(_, answer)| !rows(answer).is_empty())
                .map(|(kind, answer)| table(kind, &answer, arguments, several).render(!arguments.no_headers))
                .collect();
            output::print(&tables.join("\n"))?;
            Ok(!tables.is_empty())
        }
    }
}

/// `kind/name` on a line of its own.
pub(super) fn name_line(kind: &Kind, object: &Value) -> String {
    format!("{}/{}\n", kind.label(), text_of(&object["metadata"]["name"]))
}

/// The server's table as it is shown. `with_kind` puts the kind before each name.
pub(super) fn table(kind: &Kind, answer: &Value, arguments: &Arguments, with_kind: bool) -> Table {
    let mut table = Table::from_server(answer, arguments.output == Format::Wide);
    if with_kind {
        table.mark(&format!("{}/", kind.label()));
    }
    let metadata = |row: &Value, field: &str| row["object"]["metadata"][field].clone();
    if arguments.all_namespaces && kind.namespaced {
        table.prefix("NAMESPACE", rows(answer).iter().map(|row| text_of(&metadata(row, "namespace"))));
    }
    if arguments.show_labels {
        table.suffix("LABELS", rows(answer).iter().map(|row| labels(&metadata(row, "labels"))));
    }
    table
}

fn labels(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", text_of(value))).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

pub(super) fn rows(table: &Value) -> &[Value] {
    table["rows"].as_array().map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The objects of a list, or the object itself.
fn objects(answer: &Value) -> Vec<&Value> {
    answer["items"].as_array().map_or_else(|| vec![answer], |items| items.iter().collect())
}

/// All objects as one list, each with its kind, as `kubectl` prints them.
fn list(answers: &[(&Kind, Value)]) -> Value {
    let items = answers.iter().flat_map(|(kind, answer)| {
        objects(answer).into_iter().map(|object| {
            let mut object = object.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.entry("apiVersion").or_insert_with(|| json!(kind.resource.api_version));
                fields.entry("kind").or_insert_with(|| json!(kind.resource.kind));
            }
            object
        })
    });
    let items: Vec<Value> = items.collect();
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// One table a kind, in the order in which the kinds first appear.
fn by_kind<'a>(answers: &[(&'a Kind, Value)]) -> Vec<(&'a Kind, Value)> {
    let mut tables: Vec<(&Kind, Value)> = Vec::new();
    for (kind, answer) in answers {
        match tables.iter_mut().find(|(known, _)| known.resource == kind.resource) {
            Some((_, table)) => {
                if let Some(all) = table["rows"].as_array_mut() {
                    all.extend(rows(answer).iter().cloned());
                }
            }
            None => tables.push((kind, answer.clone())),
        }
    }
    tables
}
