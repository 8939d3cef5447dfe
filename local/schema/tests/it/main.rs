//! The crate against what a real Kubernetes 1.36 answered.

mod recorded;
