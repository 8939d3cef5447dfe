//! Defaults and validation of the built-in Kubernetes kinds, as pure functions over JSON.
