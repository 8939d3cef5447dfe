use std::fmt;
use std::sync::Arc;

/// The place of one object: resource, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Group and plural, such as `core/pods` or `apps/deployments`.
    pub resource: Arc<str>,
    /// Namespace, empty for objects of the whole cluster.
    pub namespace: Arc<str>,
    /// Name, unique within resource and namespace.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of an object in a namespace (or, with an empty namespace, of the whole cluster).
    pub fn new(
        resource: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
    ) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The place within the resource: what objects of one resource are ordered by.
    pub(crate) fn place(&self) -> Place {
        (self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(formatter, "{}/{}", self.resource, self.name)
        } else {
            write!(formatter, "{}/{}/{}", self.resource, self.namespace, self.name)
        }
    }
}

/// Namespace and name.
pub(crate) type Place = (Arc<str>, Arc<str>);
