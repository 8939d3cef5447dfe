//! Which folder of this machine stands for a container image. Pure.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Base images that people use for plain shell and Python commands; the machine itself stands in for them.
const WELL_KNOWN: [&str; 6] = ["busybox", "alpine", "debian", "ubuntu", "python", "bash"];

/// `PATTERN=host` or `PATTERN=/path/to/root`; `*` in the pattern stands for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRule {
    pattern: String,
    root: PathBuf,
    command: Vec<String>,
}

/// Why a rule cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageRuleError {
    /// There is no `=`.
    #[error("image rule `{0}` has no `=`; write PATTERN=host or PATTERN=/path/to/root")]
    NoRoot(String),
    /// The right side is neither `host` nor an absolute path.
    #[error("image rule `{0}` must end in `host` or an absolute path")]
    RelativeRoot(String),
}

impl ImageRule {
    /// Images that match `pattern` run on the folder `root`; `/` is the machine's own root.
    pub fn new(pattern: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        Self { pattern: pattern.into(), root: root.into(), command: Vec::new() }
    }

    /// What a container without `command` runs.
    #[must_use]
    pub fn with_command(mut self, command: Vec<String>) -> Self {
        self.command = command;
        self
    }

    /// The rules that hold without any option.
    pub fn defaults() -> Vec<Self> {
        let mut rules = vec![Self::new("host", "/"), Self::new("muster.dev/*", "/")];
        for name in WELL_KNOWN {
            for prefix in ["", "library/", "docker.io/", "docker.io/library/"] {
                for suffix in ["", ":*", "@*"] {
                    rules.push(Self::new(format!("{prefix}{name}{suffix}"), "/"));
                }
            }
        }
        rules
    }

    fn matches(&self, image: &str) -> bool {
        matches(&self.pattern, image)
    }

    /// The folder that becomes the container's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The command of a container that names none.
    pub fn command(&self) -> &[String] {
        &self.command
    }
}

impl FromStr for ImageRule {
    type Err = ImageRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pattern, root) = text.rsplit_once('=').ok_or_else(|| ImageRuleError::NoRoot(text.to_owned()))?;
        match root {
            "host" => Ok(Self::new(pattern, "/")),
            path if path.starts_with('/') => Ok(Self::new(pattern, path)),
            _ => Err(ImageRuleError::RelativeRoot(text.to_owned())),
        }
    }
}

/// The first rule that matches.
pub(crate) fn find<'a>(rules: &'a [ImageRule], image: &str) -> Option<&'a ImageRule> {
    rules.iter().find(|rule| rule.matches(image))
}

/// The message for an image without a rule.
pub(crate) fn unmapped(image: &str) -> String {
    format!(
        "image \"{image}\" is not mapped to a folder of this machine; if its programs are installed here, \
         start the cluster with `muster up --image '{image}=host'`, or give a root folder: `--image '{image}=/path'`"
    )
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_images_run_on_the_machine_itself() {
        let rules = ImageRule::defaults();
        for image in
            ["host", "busybox", "docker.io/library/python:3.12-slim", "muster.dev/train", "alpine@sha256:0"]
        {
            assert!(find(&rules, image).is_some(), "{image}");
        }
        for image in ["nginx", "busyboxer", "example.com/python:3", "library/python/x"] {
            assert!(find(&rules, image).is_none(), "{image}");
        }
    }

    #[test]
    fn a_rule_reads_its_text() {
        assert_eq!("a/*:1=host".parse(), Ok(ImageRule::new("a/*:1", "/")));
        assert_eq!("a=/srv/root".parse(), Ok(ImageRule::new("a", "/srv/root")));
        assert_eq!("a".parse::<ImageRule>(), Err(ImageRuleError::NoRoot("a".into())));
        assert!("a=relative".parse::<ImageRule>().is_err());
    }
}
