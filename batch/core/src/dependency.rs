//! What a job waits for: `afterok:17:18,afterany:19`.

use std::fmt;
use std::str::FromStr;

/// How another job must have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It has started.
    After,
    /// It has ended.
    AfterAny,
    /// It has ended well.
    AfterOk,
    /// It has failed.
    AfterNotOk,
}

impl Condition {
    const ALL: [(&'static str, Self); 4] = [
        ("after", Self::After),
        ("afterany", Self::AfterAny),
        ("afterok", Self::AfterOk),
        ("afternotok", Self::AfterNotOk),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, condition)| *condition == self).map_or("after", |(name, _)| name)
    }

    /// What a job's progress means to one that waits.
    fn judge(self, progress: Progress) -> Verdict {
        match (self, progress) {
            (Self::After, Progress::Started) => Verdict::Holds,
            (_, Progress::Waiting | Progress::Started) => Verdict::Waits,
            (_, Progress::Unknown)
            | (Self::AfterOk, Progress::Failed)
            | (Self::AfterNotOk, Progress::Succeeded) => Verdict::Never,
            _ => Verdict::Holds,
        }
    }
}

/// How far another job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is no such job (any more).
    Unknown,
    /// It has not started.
    Waiting,
    /// It runs.
    Started,
    /// It ended well.
    Succeeded,
    /// It failed or was cancelled.
    Failed,
}

/// Whether a job may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Now.
    Holds,
    /// Not yet.
    Waits,
    /// Not any more.
    Never,
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    conditions: Vec<(Condition, u64)>,
    /// One of them is enough.
    any: bool,
}

/// Why a dependency cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// Commas and question marks.
    #[error("`{0}` has both `,` (all of them) and `?` (one of them)")]
    Mixed(String),
    /// An unknown kind.
    #[error(
        "`{0}` is not supported; write after, afterany, afterok or afternotok with `:` and the numbers of jobs"
    )]
    Kind(String),
    /// Not the number of a job.
    #[error("`{0}` is not the number of a job")]
    Id(String),
}

impl FromStr for Dependency {
    type Err = DependencyError;

    fn from_str(text: &str) -> Result<Self, DependencyError> {
        let any = text.contains('?');
        if any && text.contains(',') {
            return Err(DependencyError::Mixed(text.to_owned()));
        }
        let mut conditions = Vec::new();
        for part in text.split([',', '?']) {
            let (kind, ids) = part.split_once(':').ok_or_else(|| DependencyError::Kind(part.to_owned()))?;
            let known = Condition::ALL.iter().find(|(name, _)| *name == kind);
            let (_, condition) = known.ok_or_else(|| DependencyError::Kind(kind.to_owned()))?;
            for id in ids.split(':') {
                let id = id.parse().map_err(|_| DependencyError::Id(id.to_owned()))?;
                conditions.push((*condition, id));
            }
        }
        Ok(Self { conditions, any })
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (condition, id)) in self.conditions.iter().enumerate() {
            let separator = match (index, self.any) {
                (0, _) => "",
                (_, true) => "?",
                (_, false) => ",",
            };
            write!(formatter, "{separator}{}:{id}", condition.name())?;
        }
        Ok(())
    }
}

impl Dependency {
    /// The jobs that are waited for.
    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.conditions.iter().map(|(_, id)| *id)
    }

    /// Whether the job may start, given how far the others are.
    pub fn judge(&self, progress: impl Fn(u64) -> Progress) -> Verdict {
        let verdicts = self.conditions.iter().map(|(condition, id)| condition.judge(progress(*id)));
        let verdicts: Vec<Verdict> = verdicts.collect();
        let (decides, otherwise) =
            if self.any { (Verdict::Holds, Verdict::Never) } else { (Verdict::Never, Verdict::Holds) };
        match () {
            () if verdicts.contains(&decides) => decides,
            () if verdicts.contains(&Verdict::Waits) => Verdict::Waits,
            () => otherwise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_and_written() {
        for (text, written) in [
            ("afterok:1", "afterok:1"),
            ("afterok:1:2,afterany:3", "afterok:1,afterok:2,afterany:3"),
            ("after:1?afternotok:2", "after:1?afternotok:2"),
        ] {
            assert_eq!(text.parse::<Dependency>().unwrap().to_string(), written);
        }
        for text in ["", "afterok", "singleton", "afterok:x", "afterok:1,after:2?after:3"] {
            assert!(text.parse::<Dependency>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_job_starts_when_the_others_went_as_they_must() {
        use Progress::{Failed, Started, Succeeded, Unknown, Waiting};
        use Verdict::{Holds, Never, Waits};
        let verdicts = |text: &str| {
            let dependency: Dependency = text.parse().unwrap();
            [Unknown, Waiting, Started, Succeeded, Failed].map(|progress| dependency.judge(|_| progress))
        };
        assert_eq!(verdicts("after:1"), [Never, Waits, Holds, Holds, Holds]);
        assert_eq!(verdicts("afterany:1"), [Never, Waits, Waits, Holds, Holds]);
        assert_eq!(verdicts("afterok:1"), [Never, Waits, Waits, Holds, Never]);
        assert_eq!(verdicts("afternotok:1"), [Never, Waits, Waits, Never, Holds]);
        let both: Dependency = "afterok:1:2".parse().unwrap();
        assert_eq!(both.judge(|id| if id == 1 { Succeeded } else { Started }), Waits);
        assert_eq!(both.judge(|id| if id == 1 { Failed } else { Started }), Never);
        let either: Dependency = "afterok:1?afterok:2".parse().unwrap();
        assert_eq!(either.judge(|id| if id == 1 { Succeeded } else { Started }), Holds);
        assert_eq!(either.judge(|id| if id == 1 { Failed } else { Started }), Waits);
        assert_eq!(either.judge(|_| Failed), Never);
    }
}
