//! Annotations and labels by which people ask for something, and what is told when they cannot be read.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use muster_scheduler_core::{Resources, Slice};
use muster_scheduler_queue::time::Milliseconds;

/// Something that a pod asks for and that cannot be done. The pod waits until it is mended: a gang that starts
/// otherwise than it was meant to helps nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An annotation or label says nothing that can be understood.
    #[error("{name} is `{value}`; it must be {expected}")]
    Unreadable {
        /// The annotation or label.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// Two wishes exclude each other.
    #[error("{left} and {right} exclude each other; remove one of them")]
    Contradiction {
        /// One.
        left: &'static str,
        /// The other.
        right: &'static str,
    },
    /// Something whose places are not planned here.
    #[error(
        "{field} asks for what Muster does not place here; ask for {instead}, or let the pod be bound by a scheduler \
         that places it"
    )]
    Unplanned {
        /// The field of the pod.
        field: &'static str,
        /// What can be asked for.
        instead: &'static str,
    },
    /// A wish means nothing without another.
    #[error("{name} means nothing without {needs}; add it, or remove the other")]
    Needs {
        /// What was asked for.
        name: &'static str,
        /// What it needs.
        needs: &'static str,
    },
}

/// Reads a pod's wishes, and collects what cannot be read.
pub(super) struct Wishes<'a> {
    pod: &'a Pod,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Wishes<'a> {
    pub(super) fn of(pod: &'a Pod) -> Self {
        Self { pod, problems: Vec::new() }
    }

    /// An annotation as it stands.
    pub(super) fn annotation(&self, name: &str) -> Option<&'a str> {
        Some(self.pod.metadata.annotations.as_ref()?.get(name)?.trim())
    }

    /// A label as it stands.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        Some(self.pod.metadata.labels.as_ref()?.get(name)?.trim())
    }

    /// An annotation that `read` understands.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let value = self.annotation(name)?;
        let wish = read(value);
        if wish.is_none() {
            self.problems.push(Problem::Unreadable { name, value: value.to_owned(), expected });
        }
        wish
    }

    /// The name of an object.
    pub(super) fn name(&mut self, name: &'static str) -> Option<String> {
        let expected =
            "a name of lower-case letters, digits, `-` and `.` that begins and ends with a letter or digit";
        self.read(name, expected, object_name)
    }

    /// A level of the topology.
    pub(super) fn level(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "the node label of a level, such as topology.kubernetes.io/zone", level)
    }
}

/// A name that an object can have.
pub(super) fn object_name(text: &str) -> Option<String> {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        part.bytes().all(|byte| inside(byte) || byte == b'-')
            && part.bytes().next().is_some_and(inside)
            && part.bytes().last().is_some_and(inside)
    };
    (text.len() <= 253 && text.split('.').all(part)).then(|| text.to_owned())
}

/// The name of a level; whether the cluster has it is the ledger's to say.
pub(super) fn level(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    (!text.is_empty() && text.chars().all(allowed)).then(|| text.to_owned())
}

/// Levels separated by commas, at least one.
pub(super) fn levels(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|part| level(part.trim())).collect()
}

/// `SIZE@LEVEL`.
pub(super) fn slice(text: &str) -> Option<Slice> {
    let (size, place) = text.split_once('@')?;
    Some(Slice { size: positive(size.trim())?, level: level(place.trim())? })
}

/// Milliseconds of `90m`, `1h 30m` or `PT90M`.
pub(super) fn duration(text: &str) -> Option<Milliseconds> {
    duration_or_none(text).filter(|length| *length > 0)
}

/// A length of time that may be none.
pub(super) fn duration_or_none(text: &str) -> Option<Milliseconds> {
    let length: SignedDuration = text.parse().ok()?;
    i64::try_from(length.as_millis()).ok().filter(|length| *length >= 0)
}

/// Bytes as Kubernetes writes amounts.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let mut amount = Resources::new();
    amount.add_quantity("bytes", text).ok()?;
    u64::try_from(amount.get("bytes") / 1000).ok()
}

/// Seconds above 0.
pub(super) fn seconds(text: &str) -> Option<f64> {
    text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0)
}

/// A whole number above 0.
pub(super) fn positive(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number > 0)
}
