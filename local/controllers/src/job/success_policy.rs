//! When an indexed job has succeeded although not every index has. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::SuccessPolicy;

use super::indexes;

/// The message of the first rule that the completed indexes fulfil.
pub(crate) fn met(
    policy: Option<&SuccessPolicy>,
    completed: &BTreeSet<i32>,
    completions: i32,
) -> Option<String> {
    let rules = policy.iter().flat_map(|policy| &policy.rules);
    let position = rules.into_iter().position(|rule| {
        let listed = rule.succeeded_indexes.as_deref().map(|text| indexes::parse(text, completions));
        let fitting = match &listed {
            Some(listed) => listed.intersection(completed).count(),
            None => completed.len(),
        };
        let wanted = rule.succeeded_count.and_then(|count| usize::try_from(count).ok());
        match wanted.or_else(|| listed.as_ref().map(BTreeSet::len)) {
            Some(wanted) => fitting >= wanted,
            None => false,
        }
    })?;
    Some(format!("Matched rules at index {position}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule_met(rules: Value, completed: &str) -> Option<String> {
        let policy: SuccessPolicy = serde_json::from_value(json!({ "rules": rules })).unwrap();
        met(Some(&policy), &indexes::parse(completed, 10), 10)
    }

    #[test]
    fn indexes_and_counts_are_both_asked_for() {
        let listed = json!([{ "succeededIndexes": "0,3-4" }]);
        assert_eq!(rule_met(listed.clone(), "0,3"), None);
        assert_eq!(rule_met(listed, "0,1,3,4").as_deref(), Some("Matched rules at index 0"));
        let some = json!([{ "succeededCount": 9 }, { "succeededIndexes": "0-5", "succeededCount": 2 }]);
        assert_eq!(rule_met(some.clone(), "0,7-9"), None);
        assert_eq!(rule_met(some, "0,2,7").as_deref(), Some("Matched rules at index 1"));
        assert_eq!(met(None, &BTreeSet::from([0]), 1), None);
    }
}
