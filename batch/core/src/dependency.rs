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
    fn judge(self, progress: Progress) -> Outlook {
        match (self, progress) {
            (Self::After, Progress::Started) => Outlook::Holds,
            (_, Progress::Waiting | Progress::Started) => Outlook::Waits,
            (_, Progress::Unknown)
            | (Self::AfterOk, Progress::Failed)
            | (Self::AfterNotOk, Progress::Succeeded) => Outlook::Never,
            _ => Outlook::Holds,
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

/// What one condition has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    Holds,
    Waits,
    Never,
}

/// Whether a job may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Now.
    Holds,
    /// Not yet; this is what still decides.
    Waits(Dependency),
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
        let outlooks: Vec<Outlook> =
            self.conditions.iter().map(|(condition, id)| condition.judge(progress(*id))).collect();
        let (decides, otherwise) = if self.any {
            ((Outlook::Holds, Verdict::Holds), Verdict::Never)
        } else {
            ((Outlook::Never, Verdict::Never), Verdict::Holds)
        };
        if outlooks.contains(&decides.0) {
            return decides.1;
        }
        let open = self.conditions.iter().zip(outlooks).filter(|(_, outlook)| *outlook == Outlook::Waits);
        let conditions: Vec<_> = open.map(|(condition, _)| *condition).collect();
        match conditions.len() {
            0 => otherwise,
            left => Verdict::Waits(Self { conditions, any: self.any && left > 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        let verdicts = |text: &str| {
            let dependency: Dependency = text.parse().unwrap();
            [Unknown, Waiting, Started, Succeeded, Failed].map(|progress| {
                match dependency.judge(|_| progress) {
                    Verdict::Holds => "holds",
                    Verdict::Waits(_) => "waits",
                    Verdict::Never => "never",
                }
            })
        };
        assert_eq!(verdicts("after:1"), ["never", "waits", "holds", "holds", "holds"]);
        assert_eq!(verdicts("afterany:1"), ["never", "waits", "waits", "holds", "holds"]);
        assert_eq!(verdicts("afterok:1"), ["never", "waits", "waits", "holds", "never"]);
        assert_eq!(verdicts("afternotok:1"), ["never", "waits", "waits", "never", "holds"]);
    }

    #[test]
    fn what_has_come_need_not_be_waited_for_again() {
        use Progress::{Failed, Started, Succeeded};
        let judge = |text: &str, progress: &dyn Fn(u64) -> Progress| {
            text.parse::<Dependency>().unwrap().judge(progress)
        };
        let rest = |text: &str| Verdict::Waits(text.parse().unwrap());
        let first = |first: Progress| move |id: u64| if id == 1 { first } else { Started };
        assert_eq!(judge("afterok:1:2", &first(Succeeded)), rest("afterok:2"));
        assert_eq!(judge("afterok:1:2", &first(Failed)), Verdict::Never);
        assert_eq!(judge("afterok:1?afterok:2", &first(Succeeded)), Verdict::Holds);
        assert_eq!(judge("afterok:1?afterok:2", &first(Failed)), rest("afterok:2"));
        assert_eq!(judge("afterok:1?afterok:2", &|_| Failed), Verdict::Never);
    }

    proptest! {
        /// Whatever happens in whichever order, and whether or not what is left is written down after each step and
        /// those who have ended are forgotten then, a job starts in the same cases.
        #[test]
        fn narrowing_changes_no_end(
            any in any::<bool>(),
            kinds in proptest::collection::vec(0_usize..4, 1..5),
            ends in proptest::collection::vec(any::<bool>(), 5),
        ) {
            let separator = if any { "?" } else { "," };
            let parts = (0..).zip(&kinds).map(|(id, kind)| format!("{}:{id}", Condition::ALL[*kind].0));
            let whole: Dependency = parts.collect::<Vec<_>>().join(separator).parse().unwrap();
            let end = |id: u64| if ends[id as usize] { Progress::Succeeded } else { Progress::Failed };
            let last = kinds.len() as u64;
            let mut verdict = Verdict::Waits(whole.clone());
            for step in 0..last {
                let Verdict::Waits(left) = &verdict else { break };
                verdict = left.judge(|id| match id {
                    id if id < step => Progress::Unknown,
                    id if id == step => end(id),
                    _ => Progress::Waiting,
                });
            }
            prop_assert_eq!(verdict, whole.judge(end));
        }
    }
}
