//! The kubeflow.org training kinds.
