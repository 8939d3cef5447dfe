//! The `Topology` kind of Kueue and KAI: levels as node labels, outermost first.

use serde_json::Value;

use super::field::{Field, FieldError};
use super::labels::HOSTNAME;
use crate::tree::Level;

/// Levels between root and host that a tree has room for.
const MAX_LEVELS: usize = 14;

/// The levels of a `Topology` object, with root and host. They go with the nodes' labels
/// ([`super::labels::entries`]) into [`crate::Topology::build`].
pub fn levels(object: &Value) -> Result<Vec<Level>, FieldError> {
    let list = Field::root(object).get("spec").get("levels");
    let fields = list.list()?;
    if fields.is_empty() {
        return Err(list.error("must name at least one label"));
    }
    let mut levels: Vec<Level> = Vec::new();
    let last = fields.len() - 1;
    for (index, field) in fields.iter().enumerate() {
        let label = field.get("nodeLabel");
        let key = label.text()?;
        if levels.iter().any(|level| level.keys[0] == key) {
            return Err(label.error(format!("{key} is a level already")));
        }
        if key == HOSTNAME {
            if index != last {
                return Err(label.error(format!("{HOSTNAME} can only be the last level")));
            }
            break;
        }
        if levels.len() == MAX_LEVELS {
            return Err(list.error(format!("must not have more than {MAX_LEVELS} levels")));
        }
        let name = key.rsplit('/').next().unwrap_or(key);
        let taken = |name: &String| {
            name.is_empty()
                || ["cluster", "host"].contains(&name.as_str())
                || levels.iter().any(|level| level.name == *name)
        };
        let names = [name.to_owned(), key.to_owned(), format!("label {key}")];
        let name = names
            .into_iter()
            .find(|name| !taken(name))
            .ok_or_else(|| label.error("has no name of its own"))?;
        levels.push(Level::new(name, &[key]));
    }
    Ok(Level::between_cluster_and_host(levels))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::field::arbitrary;
    use super::*;

    fn topology(labels: &[&str]) -> Value {
        let levels: Vec<Value> = labels.iter().map(|label| json!({"nodeLabel": label})).collect();
        json!({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Topology", "spec": {"levels": levels}})
    }

    #[test]
    fn labels_become_levels() {
        let levels =
            levels(&topology(&["cloud.provider.com/block", "cloud.provider.com/rack", HOSTNAME])).unwrap();
        let names: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        assert_eq!(names, ["cluster", "block", "rack", "host"]);
        assert_eq!(levels[1].keys, ["cloud.provider.com/block"]);
    }

    #[test]
    fn names_that_are_taken_are_written_in_full() {
        let levels = levels(&topology(&["a/rack", "b/rack", "c/host"])).unwrap();
        let names: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        assert_eq!(names, ["cluster", "rack", "b/rack", "c/host", "host"]);
    }

    #[test]
    fn faults_name_the_field() {
        let fault = |object: Value| levels(&object).unwrap_err().to_string();
        assert_eq!(fault(json!({})), "spec.levels: must name at least one label");
        assert_eq!(fault(json!({"spec": {"levels": 3}})), "spec.levels: must be a list");
        assert_eq!(fault(json!({"spec": {"levels": [{}]}})), "spec.levels[0].nodeLabel: must be set");
        assert_eq!(fault(topology(&["a/b", "a/b"])), "spec.levels[1].nodeLabel: a/b is a level already");
        assert_eq!(
            fault(topology(&[HOSTNAME, "a/b"])),
            "spec.levels[0].nodeLabel: kubernetes.io/hostname can only be the last level"
        );
    }

    proptest! {
        #[test]
        fn anything_is_answered(value in arbitrary::value(&["spec", "levels", "nodeLabel"])) {
            let _ = levels(&value);
        }

        #[test]
        fn levels_that_are_accepted_make_a_tree(labels in prop::collection::vec("[a-c]{0,1}/?[a-c]{0,2}", 0..18)) {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            if let Ok(levels) = levels(&topology(&labels)) {
                prop_assert!(crate::Topology::build(levels, &[], crate::SharedNames::Distinct).is_ok());
            }
        }
    }
}
