//! The kinds that a cluster serves, found by any name that people use: `pods`, `pod`, `po`, `pytorchjobs.kubeflow.org`.

use http::Request;
use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};
use muster_trainer_api::names;
use serde::Deserialize;

use crate::error::Error;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A kind that the cluster serves.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Group, version, kind and plural.
    pub(crate) resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    names: Vec<String>,
    categories: Vec<String>,
}

impl Kind {
    /// The path of the collection, or of one object in it.
    pub(crate) fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let resource = &self.resource;
        let mut path = if resource.group.is_empty() {
            format!("/api/{}", resource.version)
        } else {
            format!("/apis/{}/{}", resource.group, resource.version)
        };
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&resource.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// `pod` or `pytorchjob.kubeflow.org`: how messages name the kind.
    pub(crate) fn label(&self) -> String {
        let kind = self.resource.kind.to_lowercase();
        if self.resource.group.is_empty() { kind } else { format!("{kind}.{}", self.resource.group) }
    }
}

/// All kinds of a cluster.
#[derive(Debug)]
pub(crate) struct Kinds(Vec<Kind>);

impl Kinds {
    /// Asks the cluster.
    pub(crate) async fn discover(client: &Client) -> Result<Self, Error> {
        let mut kinds = Vec::new();
        for root in ["/api", "/apis"] {
            let request = Request::get(root).header(http::header::ACCEPT, AGGREGATED).body(Vec::new());
            let request = request.map_err(|error| Error::from_source("cannot ask for the kinds", &error))?;
            let groups: GroupList = client.request(request).await?;
            kinds.extend(groups.items.iter().flat_map(Group::kinds));
        }
        Ok(Self(kinds))
    }

    /// The kind with this name; `all` and other categories give several.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<&Kind>, Error> {
        let wanted = name.to_lowercase();
        let (short, group) = wanted.split_once('.').unwrap_or((&wanted, ""));
        let matches = |kind: &&Kind| {
            kind.names.iter().any(|known| known == short)
                && (group.is_empty()
                    || kind.resource.group == group
                    || kind.resource.group.starts_with(&format!("{group}.")))
        };
        if let Some(kind) = self.0.iter().find(matches) {
            return Ok(vec![kind]);
        }
        let category: Vec<&Kind> = self.0.iter().filter(|kind| kind.categories.contains(&wanted)).collect();
        if category.is_empty() {
            let error = Error::new(format!("the cluster has no kind `{name}`"));
            return Err(match self.nearest(short) {
                Some(known) => error.with_hint(format!("did you mean `{known}`?")),
                None => error,
            });
        }
        Ok(category)
    }

    /// The kinds of training jobs; what else is in their group are notebooks and profiles.
    pub(crate) fn training(&self) -> Vec<&Kind> {
        let is_job =
            |kind: &&Kind| kind.resource.group == names::GROUP && kind.resource.kind.ends_with("Job");
        self.0.iter().filter(is_job).collect()
    }

    /// The kind of an object of a manifest.
    pub(crate) fn of(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        self.0.iter().find(|known| known.resource.api_version == api_version && known.resource.kind == kind)
    }

    /// The kind that someone meant who wrote this one: of another version, or spelt a little differently.
    pub(crate) fn resembling(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let wanted = kind.to_lowercase();
        let off = |known: &Kind| {
            let spelling = distance(&known.resource.kind.to_lowercase(), &wanted);
            (spelling, usize::from(known.resource.group != group))
        };
        let closest = self.0.iter().min_by_key(|known| off(known))?;
        // Short names have many neighbours that nobody meant.
        (off(closest).0 <= kind.len() / 4).then_some(closest)
    }

    /// The names of all kinds of a group and version.
    pub(crate) fn of_group(&self, api_version: &str) -> Vec<&str> {
        let kinds = self.0.iter().filter(|known| known.resource.api_version == api_version);
        kinds.map(|known| known.resource.kind.as_str()).collect()
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let names = self.0.iter().flat_map(|kind| &kind.names);
        let near = |known: &String| (distance(known, name), known.len().abs_diff(name.len()));
        let closest = names.min_by_key(|known| near(known))?;
        (near(closest).0 <= 2).then_some(closest)
    }
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize, Default)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Served>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    #[serde(rename = "resource")]
    plural: String,
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default, rename = "singularResource")]
    singular: String,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    kind: String,
}

impl Group {
    fn kinds(&self) -> Vec<Kind> {
        let of_version = |version: &Version| {
            version.resources.iter().filter_map(|resource| self.kind(version, resource)).collect::<Vec<_>>()
        };
        self.versions.iter().flat_map(of_version).collect()
    }

    fn kind(&self, version: &Version, resource: &Served) -> Option<Kind> {
        let kind = &resource.response_kind.as_ref()?.kind;
        let gvk = GroupVersionKind::gvk(&self.metadata.name, &version.version, kind);
        let mut names = vec![resource.plural.clone(), kind.to_lowercase(), resource.singular.clone()];
        names.extend(resource.short_names.iter().cloned());
        names.retain(|name| !name.is_empty());
        Some(Kind {
            resource: ApiResource::from_gvk_with_plural(&gvk, &resource.plural),
            namespaced: resource.scope == "Namespaced",
            names,
            categories: resource.categories.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Kinds {
        let text = r#"{"items":[{"metadata":{"name":""},"versions":[{"version":"v1","resources":[
            {"resource":"pods","responseKind":{"kind":"Pod"},"scope":"Namespaced","singularResource":"pod","shortNames":["po"],"categories":["all"]}]}]},
            {"metadata":{"name":"kubeflow.org"},"versions":[{"version":"v1","resources":[
            {"resource":"notebooks","responseKind":{"kind":"Notebook"},"scope":"Namespaced","singularResource":"notebook"},
            {"resource":"pytorchjobs","responseKind":{"kind":"PyTorchJob"},"scope":"Namespaced","singularResource":"pytorchjob"}]}]}]}"#;
        let groups: GroupList = serde_json::from_str(text).unwrap();
        Kinds(groups.items.iter().flat_map(Group::kinds).collect())
    }

    #[test]
    fn a_kind_is_found_by_each_of_its_names() {
        let kinds = kinds();
        for name in ["po", "pod", "pods", "Pod", "all"] {
            assert_eq!(kinds.named(name).unwrap()[0].resource.kind, "Pod");
        }
        let job = kinds.named("pytorchjobs.kubeflow.org").unwrap()[0];
        assert_eq!(job.path(Some("a"), Some("b")), "/apis/kubeflow.org/v1/namespaces/a/pytorchjobs/b");
        assert_eq!(job.label(), "pytorchjob.kubeflow.org");
    }

    #[test]
    fn a_kind_of_a_manifest_is_recognised_in_another_spelling() {
        let kinds = kinds();
        let meant = |version, kind| kinds.resembling(version, kind).map(|known| known.resource.kind.as_str());
        assert_eq!(meant("kubeflow.org/v1", "PytorchJob"), Some("PyTorchJob"));
        assert_eq!(meant("kubeflow.org/v2", "PyTorchJob"), Some("PyTorchJob"));
        assert_eq!(meant("kubeflow.org/v1", "TFJob"), None);
        assert_eq!(kinds.of_group("kubeflow.org/v1"), ["Notebook", "PyTorchJob"]);
        let training: Vec<_> = kinds.training().iter().map(|kind| kind.resource.kind.as_str()).collect();
        assert_eq!(training, ["PyTorchJob"]);
    }

    #[test]
    fn a_misspelt_kind_gets_a_suggestion() {
        let error = kinds().named("pytorchjbos").unwrap_err().to_string();
        assert_eq!(error, "the cluster has no kind `pytorchjbos`\nhint: did you mean `pytorchjobs`?");
    }
}
