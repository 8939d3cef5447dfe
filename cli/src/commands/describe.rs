//! `muster describe`: an object, its pods and what happened, on one page.

use clap::Args;
use serde_json::Value;

use crate::api;
use crate::commands::events;
use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;
use crate::kinds::Kinds;
use crate::output::{self, Format, Table};

/// Shows an object, its pods and what happened to it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster describe pytorchjob/digits\n  muster describe pod digits-master-0"
)]
pub(crate) struct Arguments {
    /// The kind, or KIND/NAME
    kind: String,
    /// The name
    name: Option<String>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let (kind_name, name) = match (arguments.kind.split_once('/'), &arguments.name) {
        (Some((kind, name)), None) => (kind.to_owned(), name.to_owned()),
        (None, Some(name)) => (arguments.kind.clone(), name.clone()),
        _ => return Err(Error::new("say KIND/NAME or KIND NAME").with_code(crate::error::USAGE)),
    };
    let kinds = Kinds::discover(&connection.client).await?;
    let kind = kinds.named(&kind_name)?[0];
    let object = api::get(&connection.client, &kind.path(Some(&connection.namespace), Some(&name))).await?;
    let mut text = head(&object);
    for (title, part) in [("Spec", &object["spec"]), ("Status", &without(&object["status"], "conditions"))] {
        if part.as_object().is_some_and(|fields| !fields.is_empty()) {
            text.push_str(&section(title, &output::document(part, Format::Yaml)?));
        }
    }
    text.push_str(&conditions(&object["status"]["conditions"]));
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&connection.namespace);
    text.push_str(&owned_pods(connection, namespace, &object["metadata"]["uid"]).await?);
    let path = format!(
        "/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name={name},involvedObject.uid={}",
        object["metadata"]["uid"].as_str().unwrap_or_default()
    );
    let happened = api::get(&connection.client, &path).await?;
    match happened["items"].as_array().map_or(&[][..], Vec::as_slice) {
        [] => text.push_str("Events: <none>\n"),
        events => text.push_str(&section("Events", &events::table(events).render(true))),
    }
    output::print(&text)
}

fn head(object: &Value) -> String {
    let metadata = &object["metadata"];
    let field = |value: &Value| value.as_str().unwrap_or("<none>").to_owned();
    let map = |value: &Value| {
        let pairs = value.as_object().into_iter().flatten();
        // kubectl's copy of the manifest only repeats the spec below.
        let shown =
            pairs.filter(|(key, _)| key.as_str() != "kubectl.kubernetes.io/last-applied-configuration");
        let lines: Vec<String> =
            shown.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        if lines.is_empty() { "<none>".to_owned() } else { lines.join("\n              ") }
    };
    format!(
        "Name:         {}\nNamespace:    {}\nKind:         {} ({})\nLabels:       {}\nAnnotations:  {}\nCreated:      {}\n",
        field(&metadata["name"]),
        field(&metadata["namespace"]),
        field(&object["kind"]),
        field(&object["apiVersion"]),
        map(&metadata["labels"]),
        map(&metadata["annotations"]),
        field(&metadata["creationTimestamp"]),
    )
}

fn without(value: &Value, key: &str) -> Value {
    let mut copy = value.clone();
    if let Some(fields) = copy.as_object_mut() {
        fields.remove(key);
    }
    copy
}

fn section(title: &str, text: &str) -> String {
    format!("{title}:\n{}", indented(text))
}

fn indented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() { String::new() } else { format!("  {}\n", lines.join("\n  ")) }
}

fn conditions(value: &Value) -> String {
    let Some(conditions) = value.as_array().filter(|list| !list.is_empty()) else { return String::new() };
    let mut table = Table::new(["TYPE", "STATUS", "REASON", "MESSAGE"]);
    for condition in conditions {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        table.row([text("type"), text("status"), text("reason"), text("message")]);
    }
    format!("Conditions:\n{}", indented(&table.render(true)))
}

async fn owned_pods(connection: &Connection, namespace: &str, uid: &Value) -> Result<String, Error> {
    let list = api::get(&connection.client, &format!("/api/v1/namespaces/{namespace}/pods")).await?;
    let owned = |pod: &&Value| {
        pod["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|owners| owners.iter().any(|owner| &owner["uid"] == uid))
    };
    let mut table = Table::new(["POD", "PHASE", "NODE", "IP"]);
    let mut any = false;
    for pod in list["items"].as_array().into_iter().flatten().filter(owned) {
        any = true;
        let text = |value: &Value| value.as_str().unwrap_or("<none>").to_owned();
        table.row([
            text(&pod["metadata"]["name"]),
            text(&pod["status"]["phase"]),
            text(&pod["spec"]["nodeName"]),
            text(&pod["status"]["podIP"]),
        ]);
    }
    Ok(if any { format!("Pods:\n{}", indented(&table.render(true))) } else { String::new() })
}
