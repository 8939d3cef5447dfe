//! `muster events`: what happened, newest last.

use clap::Args;
use serde_json::Value;

use crate::api;
use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::kinds::Kinds;
use crate::output::{self, Format, Table};

/// Shows what happened, newest last
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  muster events\n  muster events --for pytorchjob/digits")]
pub(crate) struct Arguments {
    /// Only events about KIND/NAME and what it owns
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    /// Events of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let path = if arguments.all_namespaces {
        "/api/v1/events".to_owned()
    } else {
        format!("/api/v1/namespaces/{}/events", connection.namespace)
    };
    let mut list = api::get(&connection.client, &path).await?;
    if let Some(about) = &arguments.about {
        let (kind, name) = about.split_once('/').ok_or_else(|| {
            Error::new(format!("`{about}` is not KIND/NAME")).with_code(crate::error::USAGE)
        })?;
        let kinds = Kinds::discover(&connection.client).await?;
        let kinds = kinds.named(kind)?;
        let kind = &kinds[0].resource.kind;
        if let Some(items) = list["items"].as_array_mut() {
            items.retain(|event| concerns(event, kind, name));
        }
    }
    if let Some(items) = list["items"].as_array_mut() {
        items.sort_by_key(last_seen);
    }
    if matches!(arguments.output, Format::Json | Format::Yaml) {
        return output::print(&output::document(&list, arguments.output)?);
    }
    let events = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    if events.is_empty() {
        output::note("No events found");
        return Ok(());
    }
    output::print(&table(events).render(true))
}

/// Whether an event is about the object, or about a pod whose name starts with the object's.
fn concerns(event: &Value, kind: &str, name: &str) -> bool {
    let object = &event["involvedObject"];
    let about = object["name"].as_str().unwrap_or_default();
    (object["kind"] == kind && about == name)
        || (object["kind"] == "Pod" && about.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
}

fn last_seen(event: &Value) -> String {
    ["lastTimestamp", "eventTime", "firstTimestamp"]
        .iter()
        .find_map(|field| event[*field].as_str())
        .or_else(|| event["metadata"]["creationTimestamp"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Events as a table for people.
pub(crate) fn table(events: &[Value]) -> Table {
    let mut table = Table::new(["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    for event in events {
        let object = &event["involvedObject"];
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().replace('\n', " ");
        let time = last_seen(event);
        let clock = time.split_once('T').map_or(time.as_str(), |(_, clock)| clock.get(..8).unwrap_or(clock));
        table.row([
            clock.to_owned(),
            text(&event["type"]),
            text(&event["reason"]),
            format!("{}/{}", text(&object["kind"]).to_lowercase(), text(&object["name"])),
            text(&event["message"]),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_of_a_job_include_its_pods() {
        let of = |kind: &str, name: &str| json!({"involvedObject": {"kind": kind, "name": name}});
        assert!(concerns(&of("PyTorchJob", "digits"), "PyTorchJob", "digits"));
        assert!(concerns(&of("Pod", "digits-worker-0"), "PyTorchJob", "digits"));
        assert!(!concerns(&of("Pod", "digits2-worker-0"), "PyTorchJob", "digits"));
    }
}
