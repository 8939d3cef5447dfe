//! A Kubernetes-compatible API server in process.
