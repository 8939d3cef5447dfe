//! Tests that did not run, and which of them may be left out.

use anyhow::{Context, Result};

/// A test that said `skipped: REASON` instead of proving something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skip {
    /// Name of the test, with its crate when the runner says it.
    pub(crate) test: String,
    /// Why it did not run.
    pub(crate) reason: String,
}

impl Skip {
    /// The skip that a line of a test's output tells of.
    pub(crate) fn in_line(test: &str, line: &str) -> Option<Self> {
        let reason = line.trim().strip_prefix("skipped:")?.trim();
        Some(Self { test: test.to_owned(), reason: reason.to_owned() })
    }
}

/// Skips that are no failure where every test is expected to run.
#[derive(Debug, Default)]
pub(crate) struct Allowed(Vec<(String, String)>);

impl Allowed {
    /// Reads the list: a line is `PATTERN | WHY`, where the pattern is a part of `TEST: REASON`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let (pattern, why) =
                line.split_once('|').with_context(|| format!("`{line}` does not say why"))?;
            Ok((pattern.trim().to_owned(), why.trim().to_owned()))
        };
        lines.map(entry).collect::<Result<_>>().map(Self)
    }

    /// Why this skip is allowed, if it is.
    pub(crate) fn why(&self, skip: &Skip) -> Option<&str> {
        let text = format!("{}: {}", skip.test, skip.reason);
        self.0.iter().find(|(pattern, _)| text.contains(pattern)).map(|(_, why)| why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_a_line_that_starts_so() {
        let skip = Skip::in_line("it::gpu", "   skipped: no GPU ").unwrap();
        assert_eq!((skip.test.as_str(), skip.reason.as_str()), ("it::gpu", "no GPU"));
        assert_eq!(Skip::in_line("it::gpu", "3 were skipped: none"), None);
    }

    #[test]
    fn what_is_allowed_says_why() {
        let allowed = Allowed::parse("# comment\n\nno GPU | the machine has none\n").unwrap();
        let skip = |reason: &str| Skip { test: "it::gpu".into(), reason: reason.into() };
        assert_eq!(allowed.why(&skip("found no GPU here")), Some("the machine has none"));
        assert_eq!(allowed.why(&skip("no kubectl")), None);
        assert!(Allowed::parse("no GPU").is_err());
    }
}
