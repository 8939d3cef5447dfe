//! The custom resource definitions, beside the training operator's own.

mod crds;
