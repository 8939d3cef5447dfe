//! Classes, numbered by their names.

use std::collections::HashMap;

/// The classes of the samples read so far.
#[derive(Debug, Default)]
pub(super) struct Classes {
    labels: Vec<u32>,
    seen: HashMap<String, u32>,
}

impl Classes {
    /// The next sample is of the class of this name.
    pub(super) fn add(&mut self, name: &str) {
        let next = self.seen.len() as u32;
        // Only a class that is new costs a name of its own.
        let label = self.seen.get(name).copied().unwrap_or_else(|| {
            self.seen.insert(name.to_owned(), next);
            next
        });
        self.labels.push(label);
    }

    /// The labels, and the classes in the order of their names; numbers in numeric order.
    pub(super) fn finish(self) -> (Vec<u32>, Vec<String>) {
        let mut classes: Vec<(String, u32)> = self.seen.into_iter().collect();
        // Numbers, of all widths and signs, come before other names.
        classes.sort_by_cached_key(|(name, _)| {
            let number = name.parse::<i128>();
            (number.is_err(), number.unwrap_or_default(), name.clone())
        });
        let mut renumbered = vec![0; classes.len()];
        for (class, (_, seen)) in classes.iter().enumerate() {
            renumbered[*seen as usize] = class as u32;
        }
        let labels = self.labels.into_iter().map(|label| renumbered[label as usize]).collect();
        (labels, classes.into_iter().map(|(name, _)| name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_numeric_order_before_other_names() {
        let mut classes = Classes::default();
        let names = ["1a", "10", "2", "18446744073709551615", "-3", "b", "2"];
        for name in names {
            classes.add(name);
        }
        let (labels, names) = classes.finish();
        assert_eq!(names, ["-3", "2", "10", "18446744073709551615", "1a", "b"]);
        assert_eq!(labels, [4, 2, 1, 3, 0, 5, 1]);
    }
}
