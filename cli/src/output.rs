//! What commands print: aligned tables, JSON, YAML, and colours on a terminal only.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use serde_json::Value;

use crate::error::Error;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// All columns
    Wide,
    /// The objects as JSON
    Json,
    /// The objects as YAML
    Yaml,
    /// `kind/name` a line
    Name,
}

/// Writes to standard output; a reader that went away (`| head`) is not an error.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    stream(text).map(|_| ())
}

/// Writes the next part of what has no end; whether anybody still reads.
pub(crate) fn stream(text: &str) -> Result<bool, Error> {
    stream_bytes(text.as_bytes())
}

/// The same of what need not be text.
pub(crate) fn stream_bytes(bytes: &[u8]) -> Result<bool, Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// `-o` of commands whose text is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DocumentFormat {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

impl From<DocumentFormat> for Format {
    fn from(format: DocumentFormat) -> Self {
        match format {
            DocumentFormat::Json => Self::Json,
            DocumentFormat::Yaml => Self::Yaml,
        }
    }
}

/// Writes a message for people to standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _written = writeln!(io::stderr().lock(), "{text}");
}

/// A value as pretty JSON or YAML.
pub(crate) fn document(value: &Value, format: Format) -> Result<String, Error> {
    let mut text = if format == Format::Yaml {
        serde_saphyr::to_string(value).map_err(|error| Error::from_source("cannot print as YAML", &error))?
    } else {
        serde_json::to_string_pretty(value)?
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// How wide the columns of a table have become.
#[derive(Debug, Default, Clone)]
pub(crate) struct Widths(Vec<usize>);

/// Rows under headings, columns padded to the widest cell and three spaces apart, as kubectl prints them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        Self { headings: headings.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Puts a column in front.
    pub(crate) fn prefix(&mut self, heading: &str, cells: impl IntoIterator<Item = String>) {
        self.headings.insert(0, heading.to_owned());
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.insert(0, cell);
        }
    }

    /// Puts a column at the end.
    pub(crate) fn suffix(&mut self, heading: &str, cells: impl IntoIterator<Item = String>) {
        self.headings.push(heading.to_owned());
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }

    /// Puts a text before each cell of the first column.
    pub(crate) fn mark(&mut self, text: &str) {
        for cell in self.rows.iter_mut().filter_map(|row| row.first_mut()) {
            cell.insert_str(0, text);
        }
    }

    /// A `meta.k8s.io/v1` Table as the API server answers it.
    pub(crate) fn from_server(table: &Value, wide: bool) -> Self {
        let empty = Vec::new();
        let columns = table["columnDefinitions"].as_array().unwrap_or(&empty);
        let shown: Vec<usize> = (0..columns.len())
            .filter(|index| wide || columns[*index]["priority"].as_i64().unwrap_or(0) == 0)
            .collect();
        let heading = |index: &usize| columns[*index]["name"].as_str().unwrap_or_default().to_uppercase();
        let rows = table["rows"].as_array().unwrap_or(&empty);
        let cells = |row: &Value| shown.iter().map(|index| cell(&row["cells"][*index])).collect();
        Self { headings: shown.iter().map(heading).collect(), rows: rows.iter().map(cells).collect() }
    }

    /// The text, with or without the headings.
    pub(crate) fn render(&self, headings: bool) -> String {
        self.render_below(headings, &mut Widths::default())
    }

    /// The text as it continues one above, whose columns were this wide.
    pub(crate) fn render_below(&self, headings: bool, Widths(widths): &mut Widths) -> String {
        widths.resize(self.headings.len().max(widths.len()), 0);
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in headings.then_some(&self.headings).into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                let _infallible = write!(line, "{cell:<width$}   ", width = *width);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// Whether to colour what goes to standard error: a terminal, and `NO_COLOR` not set.
pub(crate) fn colours_on_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The colours of the project's messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    /// Went well.
    Green,
    /// Needs a look.
    Yellow,
    /// Failed.
    Red,
}

/// `text` in `colour` when `enabled`.
pub(crate) fn paint(text: &str, colour: Colour, enabled: bool) -> String {
    if !enabled {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_server_table_is_printed_as_kubectl_does() {
        let answer = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}, {"name": "Node", "priority": 1}],
            "rows": [{"cells": ["web", "2s", "n0"]}, {"cells": ["a-longer-name", "10m", null]}],
        });
        assert_eq!(
            Table::from_server(&answer, false).render(true),
            "NAME            AGE\nweb             2s\na-longer-name   10m\n"
        );
        assert!(Table::from_server(&answer, true).render(false).ends_with("10m   <none>\n"));
    }

    #[test]
    fn a_table_that_goes_on_keeps_its_columns() {
        let table = |name: &str| {
            let mut table = Table::new(["NAME", "AGE"]);
            table.row([name, "1s"]);
            table
        };
        let mut widths = Widths::default();
        assert_eq!(
            table("a-long-name").render_below(true, &mut widths),
            "NAME          AGE\na-long-name   1s\n"
        );
        assert_eq!(table("b").render_below(false, &mut widths), "b             1s\n");
    }

    #[test]
    fn colours_can_be_off() {
        assert_eq!(paint("x", Colour::Red, false), "x");
        assert_eq!(paint("x", Colour::Red, true), "\u{1b}[31mx\u{1b}[0m");
    }
}
