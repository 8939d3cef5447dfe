//! Options from a TOML file: its entries become words of the command line, before those that are there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Value};

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// An entry has no counterpart on the command line.
    #[error("{}: {key} is neither a value nor a list of values", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
}

/// The words with the entries of the file that `--config` names put in after the name of the program. Tables only group
/// entries: `[model] width = 256` says the same as `width = 256`.
pub(crate) fn expand(words: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    let Some(path) = named(&words) else { return Ok(words) };
    let text = fs_err::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let document: DocumentMut =
        text.parse().map_err(|error| Error::Syntax { path: path.clone(), problem: format!("{error}") })?;
    let mut expanded: Vec<OsString> = words.iter().take(1).cloned().collect();
    for (key, item) in document.iter() {
        add(&mut expanded, &path, key, item)?;
    }
    expanded.extend(words.into_iter().skip(1));
    Ok(expanded)
}

fn named(words: &[OsString]) -> Option<PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

fn add(words: &mut Vec<OsString>, path: &Path, key: &str, item: &Item) -> Result<(), Error> {
    if let Some(table) = item.as_table_like() {
        return table.iter().try_for_each(|(key, item)| add(words, path, key, item));
    }
    let unusable = || Error::Entry { path: path.to_owned(), key: key.to_owned() };
    let option = format!("--{}", key.replace('_', "-"));
    let value = item.as_value().ok_or_else(unusable)?;
    match value {
        Value::Boolean(flag) => {
            if *flag.value() {
                words.push(option.into());
            }
        }
        Value::Array(values) => {
            let values: Option<Vec<String>> = values.iter().map(plain).collect();
            words.push(format!("{option}={}", values.ok_or_else(unusable)?.join(",")).into());
        }
        value => words.push(format!("{option}={}", plain(value).ok_or_else(unusable)?).into()),
    }
    Ok(())
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(flag) => Some(flag.value().to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::InlineTable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, ModelKind};

    fn parsed(config: &str, more: &[&str]) -> Result<Arguments, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.toml");
        fs_err::write(&path, config).unwrap();
        let option = format!("--config={}", path.display());
        let words: Vec<OsString> =
            ["muster-train", &option].into_iter().chain(more.iter().copied()).map(OsString::from).collect();
        let words = expand(words).map_err(|error| error.to_string())?;
        Arguments::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let config = "data = \"text\"\nepochs = 3\nrecompute = true\n[model-shape]\nmodel = \"gpt\"\nhidden = [8, 4]\n\
                      learning_rate = 1e-3\n";
        let arguments = parsed(config, &["--epochs", "5"]).unwrap();
        assert_eq!((arguments.model, arguments.learning.epochs), (ModelKind::Gpt, 5));
        assert_eq!((&arguments.shape.hidden[..], arguments.learning.learning_rate), (&[8, 4][..], 1e-3));
        assert!(arguments.division.recompute && arguments.data == Path::new("text"));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let message = |config| parsed(config, &[]).unwrap_err();
        assert!(message("data = ").contains("train.toml: "), "{}", message("data = "));
        assert!(message("data = \"x\"\nlayers = 3").contains("--layers"));
        assert!(message("data = 1979-05-27").ends_with("data is neither a value nor a list of values"));
        let absent = expand(vec!["muster-train".into(), "--config".into(), "/nowhere.toml".into()]);
        assert!(absent.unwrap_err().to_string().starts_with("cannot read /nowhere.toml: "));
    }
}
