//! Variables of containers.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};

/// A variable with this value.
pub(super) fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

/// A variable with the index of the pod in its Job.
pub(super) fn pod_index(name: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: "metadata.annotations['batch.kubernetes.io/job-completion-index']".to_owned(),
    };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// Sets variables; those that are there already keep their place, so that others may refer to them.
pub(super) fn set(variables: &mut Option<Vec<EnvVar>>, wanted: &[EnvVar]) {
    if wanted.is_empty() {
        return;
    }
    let variables = variables.get_or_insert_default();
    for new in wanted {
        match variables.iter_mut().find(|variable| variable.name == new.name) {
            Some(variable) => variable.clone_from(new),
            None => variables.push(new.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_occurs_once_and_keeps_its_place() {
        let mut variables = Some(vec![value("A", "1"), value("B", "2")]);
        set(&mut variables, &[value("A", "3"), value("C", "4")]);
        let read: Vec<_> = variables.unwrap().into_iter().map(|v| (v.name, v.value.unwrap())).collect();
        let expected = [("A", "3"), ("B", "2"), ("C", "4")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(read, expected);
    }

    #[test]
    fn no_variables_stay_none() {
        let mut variables = None;
        set(&mut variables, &[]);
        assert_eq!(variables, None);
    }
}
