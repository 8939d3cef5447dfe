//! The resources the server knows: the built-in table and the registered custom ones, looked up by path.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use muster_schema::SchemaRef;
use muster_schema::catalogue::Catalogue;

use crate::builtin;
use crate::custom::CustomVersion;

/// A part of an object with a path of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subresource {
    /// Last path segment, such as `status`.
    pub name: String,
    /// Group, version and kind of its body when it is not the object's own.
    pub kind: Option<(String, String, String)>,
    /// Verbs it takes.
    pub verbs: Vec<String>,
}

/// One resource in one version.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name, the path segment.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind of the object.
    pub kind: String,
    /// Kind of a list of them.
    pub list_kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Abbreviations.
    pub short_names: Vec<String>,
    /// Groups of resources such as `all`.
    pub categories: Vec<String>,
    /// Verbs, in alphabetical order; without `get` nothing is stored.
    pub verbs: Vec<String>,
    /// Parts with paths of their own.
    pub subresources: Vec<Subresource>,
    /// Where objects are kept, such as `core/pods`. Views of one store share it.
    pub storage_key: Arc<str>,
    /// The schema side of a custom resource.
    pub custom: Option<Arc<CustomVersion>>,
    /// The kind's schema, looked up at first use.
    pub schema: OnceLock<Option<SchemaRef>>,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kind's schema; none for kinds that the catalogue does not know.
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        let find = || match &self.custom {
            Some(custom) => Some(SchemaRef::Inline(custom.version.schema.clone())),
            None => Catalogue::get().by_kind(&self.group, &self.version, &self.kind),
        };
        self.schema.get_or_init(find).as_ref()
    }

    /// A verb of the resource itself.
    pub(crate) fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    /// Looks a subresource up.
    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether the object has a status that only `/status` writes.
    pub(crate) fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether this is the built-in of that group and plural.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural && self.custom.is_none()
    }
}

/// The versions of a group, the preferred one first, each with its resources.
pub(crate) type Versions = Vec<(String, Vec<Arc<Resource>>)>;

/// Every resource of one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    by_path: HashMap<(String, String, String), Arc<Resource>>,
    /// Groups in the order of discovery, each with its versions, the preferred one first.
    pub groups: Vec<(String, Versions)>,
    /// Goes up with every change, for cached documents.
    pub generation: u64,
}

impl Snapshot {
    /// The resource at a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// Versions of a group.
    pub(crate) fn versions(&self, group: &str) -> Option<&Versions> {
        self.groups.iter().find(|(name, _)| name == group).map(|(_, versions)| versions)
    }

    /// Resources of a group version.
    pub(crate) fn resources(&self, group: &str, version: &str) -> Option<&[Arc<Resource>]> {
        let versions = self.versions(group)?;
        versions.iter().find(|(name, _)| name == version).map(|(_, resources)| resources.as_slice())
    }

    /// OpenAPI keys of the group versions without custom resources.
    pub(crate) fn builtin_keys(&self) -> impl Iterator<Item = String> {
        let all = self.groups.iter().flat_map(|(group, versions)| {
            versions.iter().map(move |(version, resources)| (group, version, resources))
        });
        all.filter(|(_, _, resources)| resources.iter().all(|resource| resource.custom.is_none()))
            .map(|(group, version, _)| muster_schema::openapi::index_key(group, version))
    }

    /// Every resource whose objects are stored, one row per storage key.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let all =
            self.groups.iter().flat_map(|(_, versions)| versions.iter().flat_map(|(_, list)| list.iter()));
        let mut seen = std::collections::HashSet::new();
        all.filter(move |resource| resource.has_verb("watch") && seen.insert(resource.storage_key.clone()))
    }
}

/// The registry: reads take a snapshot, the custom resource controller replaces the custom part.
#[derive(Debug)]
pub(crate) struct Registry {
    builtin: Vec<Arc<Resource>>,
    current: ArcSwap<Snapshot>,
}

impl Default for Registry {
    fn default() -> Self {
        let builtin: Vec<Arc<Resource>> = builtin::resources().into_iter().map(Arc::new).collect();
        let snapshot = assemble(&builtin, &[], 1);
        Self { builtin, current: ArcSwap::from_pointee(snapshot) }
    }
}

impl Registry {
    /// The resources of now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the custom resources.
    pub(crate) fn set_custom(&self, custom: &[Arc<Resource>]) {
        let generation = self.current.load().generation + 1;
        self.current.store(Arc::new(assemble(&self.builtin, custom, generation)));
    }
}

fn assemble(builtin: &[Arc<Resource>], custom: &[Arc<Resource>], generation: u64) -> Snapshot {
    let mut snapshot = Snapshot { generation, ..Snapshot::default() };
    let mut custom_groups: BTreeMap<&str, BTreeMap<VersionOrder, Vec<Arc<Resource>>>> = BTreeMap::new();
    for resource in builtin {
        let known = snapshot.groups.iter().position(|(name, _)| *name == resource.group);
        let place = known.unwrap_or_else(|| {
            snapshot.groups.push((resource.group.clone(), Vec::new()));
            snapshot.groups.len() - 1
        });
        let group = &mut snapshot.groups[place].1;
        match group.iter_mut().find(|(version, _)| *version == resource.version) {
            Some((_, list)) => list.push(resource.clone()),
            None => group.push((resource.version.clone(), vec![resource.clone()])),
        }
    }
    for resource in custom {
        let versions = custom_groups.entry(&resource.group).or_default();
        versions.entry(VersionOrder::of(&resource.version)).or_default().push(resource.clone());
    }
    for (group, versions) in custom_groups {
        // A custom group never shadows a built-in one: the CRD's validation refuses that.
        let versions = versions.into_iter().map(|(order, mut list)| {
            list.sort_by(|a, b| a.plural.cmp(&b.plural));
            (order.text, list)
        });
        snapshot.groups.push((group.to_owned(), versions.collect()));
    }
    for (group, versions) in &snapshot.groups {
        for (version, list) in versions {
            for resource in list {
                let path = (group.clone(), version.clone(), resource.plural.clone());
                snapshot.by_path.insert(path, resource.clone());
            }
        }
    }
    snapshot
}

/// Kubernetes' order of versions: stable before beta before alpha, higher numbers first, the rest by name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VersionOrder {
    rank: (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>),
    text: String,
}

impl VersionOrder {
    /// Ranks a version.
    pub(crate) fn of(version: &str) -> Self {
        let rank = Self::parse(version).unwrap_or((3, std::cmp::Reverse(0), std::cmp::Reverse(0)));
        Self { rank, text: version.to_owned() }
    }

    fn parse(version: &str) -> Option<(u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>)> {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..end].parse().ok()?;
        let (stage, minor) = match &rest[end..] {
            "" => (0, 0),
            tail if tail.starts_with("beta") => (1, tail[4..].parse().ok()?),
            tail if tail.starts_with("alpha") => (2, tail[5..].parse().ok()?),
            _ => return None,
        };
        Some((stage, std::cmp::Reverse(major), std::cmp::Reverse(minor)))
    }
}

impl Ord for VersionOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for VersionOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut versions = ["v1alpha1", "foo", "v2", "v1beta2", "v10", "v1beta10", "v1"];
        versions.sort_by_key(|version| VersionOrder::of(version));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn both_event_views_share_a_store() {
        let registry = Registry::default();
        let snapshot = registry.snapshot();
        let core = snapshot.find("", "v1", "events").expect("core events");
        let new = snapshot.find("events.k8s.io", "v1", "events").expect("events.k8s.io events");
        assert_eq!(core.storage_key, new.storage_key);
        assert!(
            snapshot
                .find("apps", "v1", "deployments")
                .is_some_and(|found| found.subresource("scale").is_some())
        );
    }
}
