//! The variables by which the processes of a job know of each other.

use k8s_openapi::api::core::v1::EnvVar;

/// A variable of this value.
pub(crate) fn variable(name: &str, value: impl ToString) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_string()), value_from: None }
}

/// Python prints each line at once, so that logs are current.
pub(crate) fn unbuffered_python() -> EnvVar {
    variable("PYTHONUNBUFFERED", 1)
}
