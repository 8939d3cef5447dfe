//! `deny.toml` held against what cargo resolves: which licences, which crates, one version of each, and where they
//! come from. It is the part of `cargo deny check` that needs neither a tool nor a network.

mod licence;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::Deserialize;
use toml_edit::{DocumentMut, Item};

use crate::report;
use crate::workspace::Workspace;

/// The registry that everybody's cargo knows, whatever mirror serves it.
const PUBLIC_REGISTRY: &str = "/crates.io-index";

/// What `deny.toml` says.
#[derive(Debug, Default)]
struct Rules {
    targets: Vec<String>,
    licences: Vec<String>,
    banned: Vec<String>,
    /// `name@version`, where the version may be only its start.
    skipped: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let document: DocumentMut = text.parse()?;
        let [graph, licences, bans] = ["graph", "licenses", "bans"].map(|table| document.get(table));
        Ok(Self {
            targets: strings(graph.and_then(|table| table.get("targets")), None)?,
            licences: strings(licences.and_then(|table| table.get("allow")), None)?,
            banned: strings(bans.and_then(|table| table.get("deny")), Some("crate"))?,
            skipped: strings(bans.and_then(|table| table.get("skip")), Some("crate"))?,
        })
    }
}

/// The strings of an array, or what `key` holds in the tables of one.
fn strings(item: Option<&Item>, key: Option<&str>) -> Result<Vec<String>> {
    let array = item.and_then(Item::as_array).context("deny.toml lacks one of its lists")?;
    let text = |value: &toml_edit::Value| {
        let value = match key {
            Some(key) => value.as_inline_table().and_then(|table| table.get(key)),
            None => Some(value),
        };
        value.and_then(|value| value.as_str()).map(str::to_owned).context("deny.toml holds no text there")
    };
    array.iter().map(text).collect()
}

/// What cargo knows of the crates of the lock file, used or not.
#[derive(Debug, Default, Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a crate of the tree.
    source: Option<String>,
    dependencies: Vec<Requirement>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
struct Requirement {
    name: String,
    req: String,
    path: Option<PathBuf>,
}

/// Says which rules the dependencies break; true when they break none.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let rules = Rules::parse(&fs::read_to_string(workspace.root.join("deny.toml"))?)?;
    let metadata: Metadata =
        serde_json::from_slice(&output_of(workspace, &["metadata", "--format-version", "1", "--locked"])?)?;
    let mut used = BTreeSet::new();
    for target in &rules.targets {
        // Unlike the metadata, the tree leaves out what no feature turns on.
        let options =
            ["tree", "--locked", "--workspace", "--edges", "all", "--prefix", "none", "--target", target];
        let tree = String::from_utf8(output_of(workspace, &options)?)?;
        used.extend(tree.lines().filter_map(name_and_version));
    }
    let is_used = |package: &Crate| used.contains(&(package.name.clone(), package.version.clone()));
    let crates: BTreeSet<Crate> = metadata.packages.into_iter().filter(is_used).collect();
    ensure!(!crates.is_empty(), "cargo resolves nothing");
    let errors = broken(&rules, &crates);
    for error in &errors {
        report::note(&format!("deny: {error}"));
    }
    Ok(errors.is_empty())
}

/// What a cargo command prints.
fn output_of(workspace: &Workspace, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = workspace.cargo(arguments.iter().copied()).output().context("cannot start cargo")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {}: {}", arguments[0], errors.trim());
    Ok(output.stdout)
}

/// The crate of a line such as `syn v3.0.9 (proc-macro) (*)`.
fn name_and_version(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((name.to_owned(), version.to_owned()))
}

fn broken(rules: &Rules, crates: &BTreeSet<Crate>) -> Vec<String> {
    let mut errors = Vec::new();
    for package in crates {
        let shown = format!("{}@{}", package.name, package.version);
        if rules.banned.contains(&package.name) {
            errors.push(format!("{shown} is banned"));
        }
        match &package.source {
            None => errors.extend(
                package
                    .dependencies
                    .iter()
                    .filter(|dependency| dependency.req == "*" && dependency.path.is_none())
                    .map(|dependency| format!("{shown} asks for any version of {}", dependency.name)),
            ),
            Some(source) if !source.ends_with(PUBLIC_REGISTRY) => {
                errors.push(format!("{shown} comes from {source}"));
            }
            Some(_) => match &package.license {
                None => errors.push(format!("{shown} names no licence")),
                Some(licence) if !licence::allows(licence, &rules.licences) => {
                    errors.push(format!("{shown} is under {licence}, which is not allowed"));
                }
                Some(_) => {}
            },
        }
    }
    errors.extend(versions(rules, crates));
    errors
}

/// Crates of which more versions than one are there without an exception, and exceptions without need.
fn versions(rules: &Rules, crates: &BTreeSet<Crate>) -> Vec<String> {
    let mut errors = Vec::new();
    let mut needless: BTreeSet<&str> = rules.skipped.iter().map(String::as_str).collect();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in crates.iter().filter(|package| package.source.is_some()) {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let exception = |version: &str| {
            let full = format!("{name}@{version}.");
            rules.skipped.iter().find(|skipped| full.starts_with(&format!("{skipped}.")))
        };
        let excepted: Vec<&String> = versions.iter().filter_map(|version| exception(version)).collect();
        for skipped in &excepted {
            needless.remove(skipped.as_str());
        }
        if excepted.len() + 1 < versions.len() {
            let versions: Vec<&str> = versions.into_iter().collect();
            errors.push(format!("{name} is there in {} versions: {}", versions.len(), versions.join(", ")));
        }
    }
    errors.extend(needless.into_iter().map(|skipped| format!("the exception for {skipped} is not needed")));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
[graph]
targets = ["x86_64-unknown-linux-gnu"]
[licenses]
allow = ["MIT"]
[bans]
deny = [{ crate = "native-tls", reason = "rustls" }]
skip = [{ crate = "rand@0.9", reason = "someone" }]
"#;

    fn package(name: &str, version: &str, license: &str) -> Crate {
        Crate {
            name: name.into(),
            version: version.into(),
            license: Some(license.into()),
            source: Some(format!("registry+https://host{PUBLIC_REGISTRY}")),
            ..Crate::default()
        }
    }

    fn errors(crates: impl IntoIterator<Item = Crate>) -> Vec<String> {
        broken(&Rules::parse(RULES).unwrap(), &crates.into_iter().collect())
    }

    #[test]
    fn crates_are_read_from_the_tree() {
        let read = |line| name_and_version(line).map(|(name, version)| format!("{name}@{version}"));
        assert_eq!(read("syn v3.0.9 (proc-macro) (*)").as_deref(), Some("syn@3.0.9"));
        assert_eq!(read(""), None);
    }

    #[test]
    fn a_second_version_needs_its_exception() {
        let two = [package("rand", "0.9.5", "MIT"), package("rand", "0.10.3", "MIT")];
        assert!(errors(two.clone()).is_empty());
        let three = two.into_iter().chain([package("rand", "0.8.1", "MIT")]);
        assert_eq!(errors(three), ["rand is there in 3 versions: 0.10.3, 0.8.1, 0.9.5"]);
        assert_eq!(errors([package("rand", "0.10.3", "MIT")]), ["the exception for rand@0.9 is not needed"]);
    }

    #[test]
    fn licences_bans_and_sources_are_checked() {
        let rand = || [package("rand", "0.9.5", "MIT"), package("rand", "0.10.3", "MIT")];
        let one = |package: Crate| errors(rand().into_iter().chain([package]));
        assert_eq!(one(package("a", "1.0.0", "GPL-3.0")), ["a@1.0.0 is under GPL-3.0, which is not allowed"]);
        assert_eq!(one(package("native-tls", "1.0.0", "MIT")), ["native-tls@1.0.0 is banned"]);
        let git = Crate { source: Some("git+https://host/a".into()), ..package("a", "1.0.0", "MIT") };
        assert_eq!(one(git), ["a@1.0.0 comes from git+https://host/a"]);
        let any = Requirement { name: "b".into(), req: "*".into(), path: None };
        let own = Crate { source: None, dependencies: vec![any], ..package("ours", "0.1.0", "") };
        assert_eq!(one(own), ["ours@0.1.0 asks for any version of b"]);
    }
}
