//! The tasks of an array, as `--array` names them: `0-99%10`, `1,3,5-20:5`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Most tasks of an array.
const MOST_TASKS: usize = 10_000;
/// Highest number of a task.
const HIGHEST: u32 = 4_000_000;

/// The tasks of an array and how many run at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    text: String,
    ranges: Vec<Range>,
    limit: Option<u32>,
}

/// Tasks with the same distance from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
    step: u32,
}

/// Why an array cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    /// A part that is no range.
    #[error("`{0}` is not a task, a range such as `0-9`, or one with a step such as `0-9:3`")]
    Part(String),
    /// The limit.
    #[error("`%{0}` is not the number of tasks that may run at a time, from 1 on")]
    Limit(String),
    /// A task twice.
    #[error("task {0} is named twice")]
    Twice(u32),
    /// Too many tasks.
    #[error("there are more than {MOST_TASKS} tasks; submit several arrays")]
    TooMany,
    /// A number that is too high.
    #[error("task {0} is above {HIGHEST}, the highest that there may be")]
    TooHigh(u32),
}

impl FromStr for Array {
    type Err = ArrayError;

    fn from_str(text: &str) -> Result<Self, ArrayError> {
        let (tasks, limit) = match text.split_once('%') {
            None => (text, None),
            Some((tasks, limit)) => {
                let number = limit.parse().ok().filter(|limit| *limit > 0);
                (tasks, Some(number.ok_or_else(|| ArrayError::Limit(limit.to_owned()))?))
            }
        };
        let ranges = tasks.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
        let total: u64 = ranges.iter().map(|range| u64::from(range.count)).sum();
        if total > MOST_TASKS as u64 {
            return Err(ArrayError::TooMany);
        }
        let array = Self { text: text.to_owned(), ranges, limit };
        let mut seen = BTreeSet::new();
        if let Some(twice) = array.tasks().find(|task| !seen.insert(*task)) {
            return Err(ArrayError::Twice(twice));
        }
        Ok(array)
    }
}

fn range(part: &str) -> Result<Range, ArrayError> {
    let wrong = || ArrayError::Part(part.to_owned());
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let (ends, step) = part.split_once(':').map_or((part, None), |(ends, step)| (ends, Some(step)));
    let (first, last) = ends.split_once('-').unwrap_or((ends, ends));
    let (first, last) = (number(first)?, number(last)?);
    let step = step.map_or(Ok(1), number)?;
    if step == 0 || last < first {
        return Err(wrong());
    }
    if last > HIGHEST {
        return Err(ArrayError::TooHigh(last));
    }
    Ok(Range { first, count: (last - first) / step + 1, step })
}

impl fmt::Display for Array {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Array {
    /// The tasks, in the order of the completion indexes.
    pub fn tasks(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|range| (0..range.count).map(|number| range.first + number * range.step))
    }

    /// How many tasks there are.
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|range| range.count).sum()
    }

    /// How many tasks run at a time.
    pub fn at_once(&self) -> u32 {
        self.limit.unwrap_or(u32::MAX).min(self.count())
    }

    /// The tasks as the program that starts them reads them: `first:count:step` of each range.
    pub(crate) fn ranges(&self) -> String {
        let range = |range: &Range| format!("{}:{}:{}", range.first, range.count, range.step);
        self.ranges.iter().map(range).collect::<Vec<_>>().join(" ")
    }

    /// The task with this completion index.
    pub fn task(&self, index: u32) -> Option<u32> {
        self.tasks().nth(index as usize)
    }

    /// What of Slurm's variables says how large the array is: lowest task, highest, step.
    pub(crate) fn extent(&self) -> (u32, u32, u32) {
        let step = if let [one] = self.ranges.as_slice() { one.step } else { 1 };
        (self.tasks().min().unwrap_or(0), self.tasks().max().unwrap_or(0), step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_as_slurm_does() {
        for (text, tasks, at_once) in [
            ("0-3", vec![0, 1, 2, 3], 4),
            ("1,3,5-20:5", vec![1, 3, 5, 10, 15, 20], 6),
            ("0-99%10", (0..100).collect(), 10),
            ("7%3", vec![7], 1),
        ] {
            let array: Array = text.parse().unwrap();
            assert_eq!((array.tasks().collect::<Vec<_>>(), array.at_once()), (tasks, at_once), "{text}");
            assert_eq!(array.to_string(), text);
        }
        for (text, error) in [
            ("", ArrayError::Part(String::new())),
            ("3-1", ArrayError::Part("3-1".into())),
            ("1-x", ArrayError::Part("1-x".into())),
            ("1-9:0", ArrayError::Part("1-9:0".into())),
            ("0-9%0", ArrayError::Limit("0".into())),
            ("1,0-3", ArrayError::Twice(1)),
            ("0-10000", ArrayError::TooMany),
            ("4000001", ArrayError::TooHigh(4_000_001)),
        ] {
            assert_eq!(text.parse::<Array>(), Err(error), "{text}");
        }
    }
}
