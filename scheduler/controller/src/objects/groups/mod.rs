//! Objects of other systems that say how many pods start together. They are read and never written.

mod jobs;
mod pod_groups;

use std::fmt;

use kube::api::DynamicObject;
use muster_scheduler_core::Closeness;
use serde_json::Value;

/// Kinds of objects that describe gangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// `PodGroup` of the coscheduling plugin.
    Coscheduling,
    /// `PodGroup` of Volcano.
    Volcano,
    /// `PodGroup` of Kubernetes itself, since 1.36.
    Native,
    /// A batch `Job`.
    Job,
    /// `JobSet`.
    JobSet,
    /// `RayCluster`.
    RayCluster,
}

impl GroupKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Coscheduling, Self::Volcano, Self::Native, Self::Job, Self::JobSet, Self::RayCluster];

    /// The API group and the kind.
    pub fn api(self) -> (&'static str, &'static str) {
        match self {
            Self::Coscheduling => ("scheduling.x-k8s.io", "PodGroup"),
            Self::Volcano => ("scheduling.volcano.sh", "PodGroup"),
            Self::Native => ("scheduling.k8s.io", "PodGroup"),
            Self::Job => ("batch", "Job"),
            Self::JobSet => ("jobset.x-k8s.io", "JobSet"),
            Self::RayCluster => ("ray.io", "RayCluster"),
        }
    }

    /// What begins the names of gangs that such objects describe.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Coscheduling | Self::Volcano | Self::Native => "podgroup",
            Self::Job => "job",
            Self::JobSet => "jobset",
            Self::RayCluster => "raycluster",
        }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, kind) = self.api();
        write!(formatter, "{kind}.{group}")
    }
}

/// An object that describes a gang.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Its kind.
    pub kind: GroupKind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for GroupKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What an object of another system says of its gang.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignGroup {
    /// The object.
    pub key: GroupKey,
    /// How many pods must start together, or why that cannot be known.
    pub min_available: Result<usize, String>,
    /// The same of parts that can be gangs of their own: the replicated jobs of a `JobSet`.
    pub parts: Vec<(String, usize)>,
    /// How near to each other they must or should be.
    pub closeness: Closeness,
    /// The queue that it names.
    pub queue: Option<String>,
    /// Its priority, which counts for all of its pods.
    pub priority: Option<i32>,
    /// The class that gives the priority where none is written.
    pub priority_class: Option<String>,
}

impl ForeignGroup {
    /// Reads an object of this kind.
    pub fn read(kind: GroupKind, object: &DynamicObject) -> Self {
        let key = GroupKey {
            kind,
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let group = Self {
            key,
            min_available: Ok(1),
            parts: Vec::new(),
            closeness: Closeness::default(),
            queue: None,
            priority: None,
            priority_class: None,
        };
        let spec = &object.data["spec"];
        match kind {
            GroupKind::Coscheduling => pod_groups::coscheduling(group, spec),
            GroupKind::Volcano => pod_groups::volcano(group, spec),
            GroupKind::Native => pod_groups::native(group, spec),
            GroupKind::Job => jobs::job(group, spec, &object.data["status"]),
            GroupKind::JobSet => jobs::job_set(group, spec, &object.data["status"]),
            GroupKind::RayCluster => jobs::ray_cluster(group, spec),
        }
    }

    /// How many pods of the gang, or of a part of it, must start together.
    ///
    /// # Errors
    /// A sentence that says why that cannot be known.
    pub fn least(&self, part: Option<&str>) -> Result<usize, String> {
        let Some(part) = part else { return self.min_available.clone() };
        let found = self.parts.iter().find(|(name, _)| name == part);
        found.map(|(_, least)| *least).ok_or_else(|| format!("{} has no part {part}", self.key))
    }
}

/// A whole number of a field, which counts as `otherwise` when it is absent.
fn count(value: &Value, field: &str, otherwise: usize) -> Result<usize, String> {
    match &value[field] {
        Value::Null => Ok(otherwise),
        given => given
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| format!("its {field} is {given}; it must be a whole number")),
    }
}

fn text(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
