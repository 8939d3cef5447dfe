//! `deploy/crds`: one file a kind, as `muster crds` prints them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde_json::Value;

use crate::report;
use crate::workspace::Workspace;

const FOLDER: &str = "deploy/crds";
const HEADER: &str = "# Written by `cargo xtask crds`; a change here is lost.\n";

/// Writes the files and removes those of kinds that are no more.
pub(crate) fn write(workspace: &Workspace, program: &Path) -> Result<()> {
    let folder = workspace.root.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let wanted = generate(program)?;
    for name in present(&folder)?.keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(folder.join(name))?;
    }
    for (name, text) in wanted {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Says which files are not current; true when all are.
pub(crate) fn check(workspace: &Workspace, program: &Path) -> Result<bool> {
    let stale = differences(&generate(program)?, &present(&workspace.root.join(FOLDER))?);
    for line in &stale {
        report::note(&format!("{FOLDER}/{line}; `cargo xtask crds` writes it anew"));
    }
    Ok(stale.is_empty())
}

fn generate(program: &Path) -> Result<BTreeMap<String, String>> {
    let output = Command::new(program).arg("crds").output().context("cannot start `muster crds`")?;
    ensure!(output.status.success(), "muster crds: {}", String::from_utf8_lossy(&output.stderr).trim());
    split(&String::from_utf8(output.stdout).context("muster crds printed something else than text")?)
}

/// File name to text, for each document of the stream.
fn split(stream: &str) -> Result<BTreeMap<String, String>> {
    let stream = stream.strip_prefix("---\n").unwrap_or(stream);
    let mut files = BTreeMap::new();
    for document in stream.split("\n---\n") {
        let value: Value = serde_saphyr::from_str(document).context("muster crds printed no YAML")?;
        let (group, plural) = (value["spec"]["group"].as_str(), value["spec"]["names"]["plural"].as_str());
        let (group, plural) = group.zip(plural).context("a definition without group or plural")?;
        files.insert(format!("{group}_{plural}.yaml"), format!("{HEADER}{}\n", document.trim_end()));
    }
    ensure!(!files.is_empty(), "muster crds printed nothing");
    Ok(files)
}

fn present(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    if folder.is_dir() {
        for item in fs::read_dir(folder)? {
            let path = item?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(files)
}

fn differences(wanted: &BTreeMap<String, String>, present: &BTreeMap<String, String>) -> Vec<String> {
    let missing_or_old = wanted.iter().filter_map(|(name, text)| match present.get(name) {
        None => Some(format!("{name} is missing")),
        Some(other) if other != text => Some(format!("{name} is not current")),
        Some(_) => None,
    });
    let too_many = present.keys().filter(|name| !wanted.contains_key(*name));
    missing_or_old.chain(too_many.map(|name| format!("{name} belongs to no kind"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "---\nspec:\n  group: a.dev\n  names:\n    plural: ones\n---\nspec:\n  group: b.dev\n  names:\n    plural: twos\n";

    #[test]
    fn each_kind_has_a_file() {
        let files = split(STREAM).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a.dev_ones.yaml", "b.dev_twos.yaml"]);
        assert_eq!(files["b.dev_twos.yaml"].lines().last(), Some("    plural: twos"));
        assert!(split("---\nkind: Pod\n").is_err());
    }

    #[test]
    fn every_difference_is_named() {
        let wanted = split(STREAM).unwrap();
        let mut present = wanted.clone();
        assert!(differences(&wanted, &present).is_empty());
        present.insert("a.dev_ones.yaml".into(), "old".into());
        present.remove("b.dev_twos.yaml");
        present.insert("c.yaml".into(), String::new());
        let expected =
            ["a.dev_ones.yaml is not current", "b.dev_twos.yaml is missing", "c.yaml belongs to no kind"];
        assert_eq!(differences(&wanted, &present), expected);
    }
}
