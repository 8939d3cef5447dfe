//! Which crate may know which.

use std::path::Path;

use super::Findings;
use crate::workspace::{Dependency, Package};

/// What a pure crate does without: clocks, files, networks and clients come from outside.
const IMPURE: [&str; 9] =
    ["fs-err", "hyper", "hyper-util", "kube", "muster-machinery", "nix", "rustix", "tokio", "tokio-util"];

/// Where a crate stands: a crate knows only those of lower layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Machinery,
    Nouns,
    Rules,
    Policies,
    FrontEnds,
    Services,
    Program,
    Proof,
}

fn layer(folder: &str) -> Option<Layer> {
    Some(match Path::new(folder).file_name()?.to_str()? {
        "machinery" => Layer::Machinery,
        "api" | "schema" | "store" | "admission" | "topology" => Layer::Nouns,
        "core" | "algorithms" | "checkpoint" | "collectives" | "rendezvous" | "apiserver" => Layer::Rules,
        "nccl" | "queue" => Layer::Policies,
        "extender" => Layer::FrontEnds,
        "controller" | "controllers" | "launcher" | "node" | "runtime" | "simulator" | "torch" => {
            Layer::Services
        }
        "cli" => Layer::Program,
        "tests" | "benches" => Layer::Proof,
        _ => return None,
    })
}

fn is_pure(folder: &str) -> bool {
    ["/core", "/algorithms", "/topology", "/queue", "/schema", "/admission"]
        .iter()
        .any(|end| folder.ends_with(end))
}

/// The top folder of a crate that is not at the top itself: `local`, `trainer`, `scheduler`.
fn domain(folder: &str) -> Option<&str> {
    folder.split_once('/').map(|(top, _)| top)
}

/// Checks the dependencies of the crate in `folder`.
pub(super) fn check(folder: &str, package: &Package, all: &[Package], findings: &mut Findings) {
    let known = |dependency: &&Dependency| all.iter().any(|other| other.name == dependency.name);
    let inner = package.dependencies.iter().filter(known);
    let folders = inner.filter_map(|dependency| {
        let other = all.iter().find(|other| other.name == dependency.name)?;
        Some((dependency, folder_of(other, package, folder)))
    });
    for (dependency, other) in folders {
        for error in broken(folder, &other, dependency.kind.as_deref()) {
            findings.error(error);
        }
    }
    if is_pure(folder) {
        let outside = package.dependencies.iter().filter(|dependency| dependency.kind.is_none());
        for dependency in outside.filter(|dependency| IMPURE.contains(&dependency.name.as_str())) {
            findings.error(format!("{folder} is pure and may not depend on {}", dependency.name));
        }
    }
    if folder != "xtask" && layer(folder).is_none() {
        findings.error(format!("{folder} stands in no layer; xtask/src/tidy/dependencies.rs lists them"));
    }
}

/// The other crate's folder, given where this one lies.
fn folder_of(other: &Package, package: &Package, folder: &str) -> String {
    let own = package.manifest_path.parent().unwrap_or(Path::new(""));
    let root = own.ancestors().nth(Path::new(folder).components().count()).unwrap_or(own);
    let other = other.manifest_path.parent().unwrap_or(Path::new(""));
    other.strip_prefix(root).unwrap_or(other).to_string_lossy().into_owned()
}

/// Rules that a dependency breaks.
fn broken(from: &str, to: &str, kind: Option<&str>) -> Vec<String> {
    let mut errors = Vec::new();
    if from == "xtask" {
        errors.push(format!("xtask may not depend on {to}: the chores must work while it does not compile"));
    }
    let (from_layer, to_layer) = (layer(from), layer(to));
    let upward = kind != Some("dev") && from_layer.is_some() && to_layer >= from_layer;
    if upward {
        errors.push(format!("{from} may not depend on {to}, which stands as high or higher"));
    }
    let (from_domain, to_domain) = (domain(from), domain(to));
    if from_domain == Some("local") && to_domain.is_some() && to_domain != from_domain {
        errors.push(format!("{from} may not depend on {to}: the embedded cluster knows no domain"));
    }
    let stranger = from_domain.is_some() && from_domain != to_domain;
    if stranger && to.ends_with("/controller") {
        errors.push(format!("{from} may not depend on {to}, the controller of another domain"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_know_only_lower_ones() {
        assert!(broken("trainer/core", "scheduler/api", None).is_empty());
        assert_eq!(broken("trainer/core", "trainer/controller", None).len(), 1);
        assert_eq!(broken("trainer/api", "scheduler/api", None).len(), 1);
        assert!(broken("trainer/controller", "local/apiserver", Some("dev")).is_empty());
        assert!(broken("cli", "local/node", None).is_empty());
        assert_eq!(broken("machinery", "trainer/api", None).len(), 1);
    }

    #[test]
    fn the_embedded_cluster_knows_no_domain() {
        assert_eq!(broken("local/node", "trainer/api", None).len(), 1);
        assert_eq!(broken("local/node", "trainer/api", Some("dev")).len(), 1);
        assert!(broken("local/node", "machinery", None).is_empty());
    }

    #[test]
    fn controllers_of_other_domains_are_out_of_reach() {
        assert_eq!(broken("trainer/controller", "scheduler/controller", Some("dev")).len(), 1);
        assert!(broken("cli", "scheduler/controller", None).is_empty());
    }

    #[test]
    fn pure_crates_and_unknown_folders_are_found() {
        let package = |name: &str, folder: &str, dependencies: &[&str]| Package {
            name: name.to_owned(),
            manifest_path: Path::new("/p").join(folder).join("Cargo.toml"),
            dependencies: dependencies
                .iter()
                .map(|name| Dependency { name: (*name).to_owned(), kind: None })
                .collect(),
        };
        let all = [package("a", "trainer/core", &["tokio", "b"]), package("b", "trainer/controller", &[])];
        let mut findings = Findings::default();
        check("trainer/core", &all[0], &all, &mut findings);
        assert_eq!(findings.errors.len(), 2, "{findings:?}");
        check("somewhere", &package("c", "somewhere", &[]), &all, &mut findings);
        assert!(findings.errors.iter().any(|error| error.starts_with("somewhere stands in no layer")));
    }
}
