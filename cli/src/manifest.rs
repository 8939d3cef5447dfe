//! Manifests: YAML or JSON files with one or several objects, each remembered with the line it starts on.

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use muster_machinery::Hint;
use serde_json::Value;

use crate::locate::Places;

/// Manifests larger than this are refused: an API object is at most 1.5 MiB.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such file.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// A folder.
    #[error("{} is a folder, not a manifest", .0.display())]
    Folder(PathBuf),
    /// The file cannot be read.
    #[error("cannot read the manifest")]
    Read(#[source] std::io::Error),
    /// The file is too large.
    #[error("{} is larger than {} MiB", path.display(), LARGEST_MANIFEST >> 20)]
    TooLarge { path: PathBuf },
    /// Not YAML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    /// YAML, but not an object of the API.
    #[error("{}:{line}: {problem}", path.display())]
    NotAnObject { path: PathBuf, line: usize, problem: &'static str },
    /// Nothing in it.
    #[error("{} holds no object", path.display())]
    Empty { path: PathBuf },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) | Self::Read(_) => {
                Some("check the path; use `-` to read from standard input".to_owned())
            }
            Self::Folder(_) => Some("name one of its files".to_owned()),
            Self::NotAnObject { .. } => {
                Some("every object needs `apiVersion`, `kind` and `metadata.name`".to_owned())
            }
            Self::Syntax { .. } => {
                Some("YAML is indented with spaces; look at the line above too".to_owned())
            }
            Self::TooLarge { .. } | Self::Empty { .. } => None,
        }
    }
}

/// One object of a manifest and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// The file.
    pub(crate) path: PathBuf,
    /// The line of the file before the text that the object stands in.
    before: usize,
    /// The lines of its fields in that text.
    places: Places,
    /// The object.
    pub(crate) object: Value,
}

impl Document {
    /// `apiVersion`.
    pub(crate) fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    /// `kind`.
    pub(crate) fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`, when given.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str()
    }

    /// `metadata.generateName`, when the server is to choose the name.
    pub(crate) fn generate_name(&self) -> Option<&str> {
        self.object["metadata"]["generateName"].as_str().filter(|_| self.name().is_empty())
    }

    /// An object that follows from this one: what is wrong with it is wrong here.
    pub(crate) fn implies(&self, object: Value) -> Self {
        Self { object, ..self.clone() }
    }

    /// `FILE:LINE` of a field such as `spec.replicas`, or of its nearest parent that is there.
    pub(crate) fn place_of(&self, field: &str) -> String {
        let line = self.places.find(field).line.or(self.places.first_line()).unwrap_or(1);
        format!("{}:{}", self.path.display(), self.before + line)
    }
}

/// Reads all objects of a file (`-` is standard input).
pub(crate) fn read(path: &Path) -> Result<Vec<Document>, Error> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(LARGEST_MANIFEST).read_to_string(&mut text).map_err(Error::Read)?;
        text
    } else {
        if !path.exists() {
            return Err(Error::Missing(path.to_owned()));
        }
        let about = fs::metadata(path).map_err(Error::Read)?;
        if about.is_dir() {
            return Err(Error::Folder(path.to_owned()));
        }
        if about.len() > LARGEST_MANIFEST {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        fs::read_to_string(path).map_err(Error::Read)?
    };
    parse(path, &text)
}

/// Reads all objects of a text that is called so.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    for (first_line, part) in split(text) {
        let syntax = |error: serde_saphyr::Error| {
            let line = error.location().map_or(0, |location| location.line().saturating_sub(1));
            let message = error.without_snippet().to_string();
            Error::Syntax {
                path: path.to_owned(),
                line: first_line + usize::try_from(line).unwrap_or(0),
                message,
            }
        };
        let object: Value = serde_saphyr::from_str(part).map_err(syntax)?;
        let places = Places::parse(part);
        let objects = match object {
            Value::Null => continue,
            Value::Object(mut list) if list.get("kind").and_then(Value::as_str) == Some("List") => {
                let items = match list.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                let with_places =
                    |(index, item)| (item, places.item("items", index).cloned().unwrap_or_default());
                items.into_iter().enumerate().map(with_places).collect()
            }
            one => vec![(one, places)],
        };
        for (object, places) in objects {
            let document = Document { path: path.to_owned(), before: first_line - 1, places, object };
            if let Some(problem) = problem_of(&document) {
                let line = first_line - 1 + document.places.first_line().unwrap_or(1);
                return Err(Error::NotAnObject { path: path.to_owned(), line, problem });
            }
            documents.push(document);
        }
    }
    if documents.is_empty() { Err(Error::Empty { path: path.to_owned() }) } else { Ok(documents) }
}

fn problem_of(document: &Document) -> Option<&'static str> {
    if !document.object.is_object() {
        Some("not an object")
    } else if document.api_version().is_empty() {
        Some("the object has no apiVersion")
    } else if document.kind().is_empty() {
        Some("the object has no kind")
    } else if document.name().is_empty() && document.generate_name().is_none() {
        Some("the object has no metadata.name")
    } else {
        None
    }
}

/// The documents of a YAML stream with the line each starts on.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            parts.push((first_line, &text[start..offset]));
            start = offset + line.len();
            first_line = index + 2;
        }
        offset += line.len();
    }
    parts.push((first_line, &text[start..]));
    parts.retain(|(_, part)| {
        part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# a comment\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: b\ndata:\n  k: dg==\n";

    #[test]
    fn documents_know_their_lines() {
        let documents = parse(Path::new("two.yaml"), TWO).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].kind(), "Secret");
        assert_eq!(documents[1].place_of("data.k"), "two.yaml:12");
        assert_eq!(documents[0].place_of("metadata.name"), "two.yaml:5");
        assert_eq!(documents[0].place_of("data"), "two.yaml:2");
    }

    #[test]
    fn errors_name_file_and_line() {
        let broken = format!("{TWO}---\nkind: [\n");
        let error = parse(Path::new("two.yaml"), &broken).unwrap_err().to_string();
        assert!(error.starts_with("two.yaml:1"), "{error}");
        let nameless = parse(Path::new("x.yaml"), "apiVersion: v1\nkind: Pod\n").unwrap_err().to_string();
        assert_eq!(nameless, "x.yaml:1: the object has no metadata.name");
        let empty = parse(Path::new("x.yaml"), "---\n# nothing\n").unwrap_err().to_string();
        assert_eq!(empty, "x.yaml holds no object");
    }

    #[test]
    fn lists_are_unpacked() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: q}\n";
        let documents = parse(Path::new("l.yaml"), list).unwrap();
        assert_eq!((documents.len(), documents[0].name()), (2, "p"));
        assert_eq!(documents[1].place_of("metadata.name"), "l.yaml:7");
    }
}
