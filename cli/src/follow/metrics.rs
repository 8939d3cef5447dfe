//! Metric lines of a training program: `name=value` pairs, the form that Katib's collector reads too.

use std::collections::BTreeMap;

/// The pairs of a line; empty when it is not a metric line.
pub(crate) fn parse(line: &str) -> BTreeMap<&str, &str> {
    let words = line.split_whitespace().filter_map(|word| word.split_once('='));
    words
        .filter(|(name, value)| {
            !value.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
        .collect()
}

/// Whether a line is the result that the first rank prints at the end.
pub(crate) fn is_result(line: &str) -> bool {
    line.starts_with("result ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_among_other_words() {
        let pairs = parse("result steps=600 test_accuracy=0.972 model=/model/model.safetensors");
        assert_eq!((pairs["steps"], pairs["model"]), ("600", "/model/model.safetensors"));
        assert!(parse("loading https://host/?a=b the data").is_empty());
        assert!(is_result("result steps=1") && !is_result("results"));
    }
}
