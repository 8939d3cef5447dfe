//! Lists of nodes and numbers in Slurm's short form: `n[1-3,7],login`.

/// Names of nodes, in order, those that differ in a last number alone under one name.
pub fn list(names: &[String]) -> String {
    let mut parts: Vec<(&str, &str)> = names.iter().map(|name| split(name)).collect();
    parts.sort_by_key(|(stem, number)| (*stem, number.len(), *number));
    let mut groups: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
    for (stem, number) in parts {
        match groups.last_mut() {
            Some((last, ranges)) if *last == stem && !number.is_empty() => match ranges.last_mut() {
                Some((_, end)) if follows(end, number) => *end = number,
                _ => ranges.push((number, number)),
            },
            _ => groups.push((stem, vec![(number, number)])),
        }
    }
    let group = |(stem, ranges): &(&str, Vec<(&str, &str)>)| match ranges.as_slice() {
        [(first, last)] if first == last => format!("{stem}{first}"),
        ranges => {
            let ranges: Vec<String> = ranges.iter().map(|(first, last)| range(first, last)).collect();
            format!("{stem}[{}]", ranges.join(","))
        }
    };
    groups.iter().map(group).collect::<Vec<_>>().join(",")
}

/// Numbers in order as ranges: `0-2,5`.
pub(crate) fn ranges(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let ranges = ranges.iter().map(|(first, last)| range(&first.to_string(), &last.to_string()));
    ranges.collect::<Vec<_>>().join(",")
}

/// Values in a row as Slurm counts them: `4(x2),3`.
pub(crate) fn repeated(values: impl Iterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((last, times)) if *last == value => *times += 1,
            _ => runs.push((value, 1)),
        }
    }
    let run = |(value, times): &(u32, u32)| match times {
        1 => value.to_string(),
        times => format!("{value}(x{times})"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

fn range(first: &str, last: &str) -> String {
    if first == last { first.to_owned() } else { format!("{first}-{last}") }
}

/// A name as what comes before its last number, and that number.
fn split(name: &str) -> (&str, &str) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    // A longer number is read as a name.
    if name.len() - stem.len() > 9 { (name, "") } else { name.split_at(stem.len()) }
}

/// Whether a number follows another, written alike.
fn follows(last: &str, next: &str) -> bool {
    let width = last.len();
    last.parse::<u32>().is_ok_and(|number| format!("{:0width$}", number + 1) == next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_listed_as_slurm_does() {
        for (names, listed) in [
            ("", ""),
            ("a", "a"),
            ("n7", "n7"),
            ("n1 n2 n3 n7", "n[1-3,7]"),
            ("n10 n9 n8", "n[8-10]"),
            ("n098 n099 n100 n1", "n[1,098-100]"),
            ("batch-3-worker-0 batch-3-worker-1", "batch-3-worker-[0-1]"),
            ("login n1 n2 gpu4 login", "gpu4,login,login,n[1-2]"),
            ("x99999999999 x1", "x1,x99999999999"),
        ] {
            let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
            assert_eq!(list(&names), listed);
        }
        assert_eq!(ranges(&[0, 1, 2, 5]), "0-2,5");
        assert_eq!(repeated([4, 4, 3].into_iter()), "4(x2),3");
        assert_eq!(repeated([1].into_iter()), "1");
    }
}
