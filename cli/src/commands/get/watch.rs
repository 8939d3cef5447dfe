//! `muster get -w`: what is there, then each change.

use futures::{AsyncBufReadExt, TryStreamExt};
use kube::Client;
use serde_json::Value;

use super::print;
use super::{Arguments, Query};
use crate::api;
use crate::error::Error;
use crate::output::{self, Format, Widths};

/// Prints objects as they are and as they change, until Ctrl-C or until nobody reads any more.
pub(super) async fn watch(client: &Client, query: &Query<'_>, arguments: &Arguments) -> Result<(), Error> {
    let as_table = matches!(arguments.output, Format::Table | Format::Wide);
    let mut screen = Screen { query, arguments, columns: Value::Null, widths: Widths::default() };
    loop {
        let (path, listed) = (query.path(), as_table);
        let list = if listed { api::table(client, &path).await? } else { api::get(client, &path).await? };
        if !screen.show(&list)? {
            return Ok(());
        }
        let mut version = version_of(&list);
        // A watch that the server ended goes on where it was, until the server has forgotten that place.
        while let Some(from) = version.take() {
            match follow(client, &mut screen, &from, as_table).await? {
                Followed::NobodyReads => return Ok(()),
                Followed::EndedAt(reached) => version = Some(reached),
                Followed::Forgotten => {}
            }
        }
    }
}

enum Followed {
    NobodyReads,
    EndedAt(String),
    Forgotten,
}

async fn follow(
    client: &Client,
    screen: &mut Screen<'_>,
    from: &str,
    as_table: bool,
) -> Result<Followed, Error> {
    let query = screen.query;
    let mut parameters = query.parameters.clone();
    if let Some(name) = &query.name {
        parameters.extend(api::selectors(None, Some(&format!("metadata.name={name}"))));
    }
    parameters.push(format!("watch=true&allowWatchBookmarks=true&resourceVersion={from}"));
    let path = format!("{}?{}", query.kind.path(query.namespace, None), parameters.join("&"));
    let stream = match api::stream(client, &path, as_table).await {
        Ok(stream) => stream,
        Err(error) if error.is_gone() => return Ok(Followed::Forgotten),
        Err(error) => return Err(error),
    };
    let mut lines = std::pin::pin!(stream.lines());
    let mut reached = from.to_owned();
    let broken = |error: std::io::Error| Error::from_source("the watch broke off", &error);
    while let Some(line) = lines.try_next().await.map_err(broken)? {
        let event: Value = serde_json::from_str(&line)?;
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ERROR") if object["code"] == 410 => return Ok(Followed::Forgotten),
            Some("ERROR") => {
                let message = object["message"].as_str().unwrap_or("the server does not say why");
                return Err(Error::new(format!("the watch broke off: {message}")));
            }
            Some("BOOKMARK") => {}
            _ => {
                if !screen.show(object)? {
                    return Ok(Followed::NobodyReads);
                }
            }
        }
        if let Some(version) = version_of(object) {
            reached = version;
        }
    }
    Ok(Followed::EndedAt(reached))
}

/// The version of a list, a table or an object; of a table's only row when it has none itself.
fn version_of(object: &Value) -> Option<String> {
    let version = |object: &Value| {
        object["metadata"]["resourceVersion"]
            .as_str()
            .filter(|version| !version.is_empty())
            .map(str::to_owned)
    };
    version(object).or_else(|| version(&object["rows"][0]["object"]))
}

/// What has been printed so far decides how the next rows stand below it.
struct Screen<'a> {
    query: &'a Query<'a>,
    arguments: &'a Arguments,
    columns: Value,
    widths: Widths,
}

impl Screen<'_> {
    /// Prints a table, a list or an object; whether anybody still reads.
    fn show(&mut self, answer: &Value) -> Result<bool, Error> {
        match self.arguments.output {
            Format::Table | Format::Wide => self.show_rows(answer),
            Format::Name => {
                let text: String =
                    objects(answer).map(|object| print::name_line(self.query.kind, object)).collect();
                output::stream(&text)
            }
            format => {
                for object in objects(answer) {
                    let separator = if format == Format::Yaml { "---\n" } else { "" };
                    if !output::stream(&format!("{separator}{}", output::document(object, format)?))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    fn show_rows(&mut self, answer: &Value) -> Result<bool, Error> {
        if print::rows(answer).is_empty() {
            return Ok(true);
        }
        let mut answer = answer.clone();
        // Only the first table of a watch names its columns.
        let first = self.columns.is_null();
        if answer["columnDefinitions"].as_array().is_some_and(|columns| !columns.is_empty()) {
            self.columns = answer["columnDefinitions"].clone();
        } else {
            answer["columnDefinitions"] = self.columns.clone();
        }
        let table = print::table(self.query.kind, &answer, self.arguments, false);
        output::stream(&table.render_below(first && !self.arguments.no_headers, &mut self.widths))
    }
}

fn objects(answer: &Value) -> impl Iterator<Item = &Value> {
    let items = answer["items"].as_array();
    items.into_iter().flatten().chain(items.is_none().then_some(answer))
}
