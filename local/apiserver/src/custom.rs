//! Custom resources: from a definition to resources that are served.

/// Where a custom resource keeps its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    /// `.spec.replicas`
    pub spec_replicas: String,
    /// `.status.replicas`
    pub status_replicas: String,
    /// `.status.selector`
    pub label_selector: Option<String>,
}

/// One served version of a custom resource.
#[derive(Debug, Clone)]
pub(crate) struct CustomVersion {
    /// Paths of fields that lists can be selected by.
    pub selectable_fields: Vec<String>,
    /// The scale subresource.
    pub scale: Option<ScalePaths>,
}
