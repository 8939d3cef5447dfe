//! Slurm's lists of hosts: `login,node[001-128,200],r[1-2]n[0-3]`.

use thiserror::Error;

/// As many hosts as one list may stand for.
const MAX_HOSTS: usize = 1 << 17;

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostlistError {
    /// A bracket without its partner, or inside another.
    #[error("brackets do not match in {list:?}")]
    Brackets {
        /// The list.
        list: String,
    },
    /// A part that is no number and no range of numbers.
    #[error("{part:?} in {list:?} is neither a number nor a range such as 001-128")]
    Range {
        /// The list.
        list: String,
        /// The part between commas.
        part: String,
    },
    /// A name is missing between two commas.
    #[error("there is an empty name in {list:?}")]
    Empty {
        /// The list.
        list: String,
    },
    /// Too many hosts.
    #[error("{list:?} stands for more than {MAX_HOSTS} hosts")]
    TooMany {
        /// The list.
        list: String,
    },
}

/// The hosts in the order of the list. Leading zeros are kept: `n[08-10]` is n08, n09, n10.
pub fn expand(list: &str) -> Result<Vec<String>, HostlistError> {
    let mut hosts = Vec::new();
    for word in words(list)? {
        let mut names = vec![String::new()];
        let mut rest = word;
        while let Some((before, after)) = rest.split_once('[') {
            let (inside, behind) = after.split_once(']').ok_or_else(|| brackets(list))?;
            let suffixes = ranges(list, inside)?;
            if names.len().saturating_mul(suffixes.len()).saturating_add(hosts.len()) > MAX_HOSTS {
                return Err(HostlistError::TooMany { list: short(list) });
            }
            let with = |name: &String| -> Vec<String> {
                suffixes.iter().map(|suffix| format!("{name}{before}{suffix}")).collect()
            };
            names = names.iter().flat_map(with).collect();
            rest = behind;
        }
        for name in &mut names {
            name.push_str(rest);
        }
        if names.iter().any(String::is_empty) {
            return Err(HostlistError::Empty { list: short(list) });
        }
        hosts.append(&mut names);
        if hosts.len() > MAX_HOSTS {
            return Err(HostlistError::TooMany { list: short(list) });
        }
    }
    Ok(hosts)
}

/// The parts between commas outside of brackets.
fn words(list: &str) -> Result<Vec<&str>, HostlistError> {
    let mut words = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'[' if inside => return Err(brackets(list)),
            b']' if !inside => return Err(brackets(list)),
            b'[' => inside = true,
            b']' => inside = false,
            b',' if !inside => {
                words.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(brackets(list));
    }
    words.push(list[start..].trim());
    Ok(words)
}

fn ranges(list: &str, inside: &str) -> Result<Vec<String>, HostlistError> {
    let mut suffixes = Vec::new();
    for part in inside.split(',') {
        let fault = || HostlistError::Range { list: short(list), part: short(part) };
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if digits { text.parse().ok() } else { None }
        };
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (first, last) =
            number(low).zip(number(high)).filter(|(first, last)| first <= last).ok_or_else(fault)?;
        if last - first >= MAX_HOSTS as u64 || suffixes.len() > MAX_HOSTS {
            return Err(HostlistError::TooMany { list: short(list) });
        }
        let width = low.len();
        suffixes.extend((first..=last).map(|number| format!("{number:0width$}")));
    }
    Ok(suffixes)
}

fn brackets(list: &str) -> HostlistError {
    HostlistError::Brackets { list: short(list) }
}

/// The beginning of a text, so that messages stay readable.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_zeros_and_several_brackets() {
        assert_eq!(expand("node[001-003,200]").unwrap(), ["node001", "node002", "node003", "node200"]);
        assert_eq!(expand("a, r[1-2]n[08-09]x").unwrap(), ["a", "r1n08x", "r1n09x", "r2n08x", "r2n09x"]);
        assert_eq!(expand("n[9-11]").unwrap(), ["n9", "n10", "n11"]);
    }

    #[test]
    fn faults_are_named() {
        for (list, message) in [
            ("n[1-2", "brackets do not match in \"n[1-2\""),
            ("n1-2]", "brackets do not match in \"n1-2]\""),
            ("n[[1]]", "brackets do not match in \"n[[1]]\""),
            ("n[3-1]", "\"3-1\" in \"n[3-1]\" is neither a number nor a range such as 001-128"),
            ("n[+1]", "\"+1\" in \"n[+1]\" is neither a number nor a range such as 001-128"),
            ("n[]", "\"\" in \"n[]\" is neither a number nor a range such as 001-128"),
            ("a,,b", "there is an empty name in \"a,,b\""),
            ("n[0-99999999999]", "\"n[0-99999999999]\" stands for more than 131072 hosts"),
            ("n[0-999][0-999]", "\"n[0-999][0-999]\" stands for more than 131072 hosts"),
        ] {
            assert_eq!(expand(list).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_as_ranges_is_read_back(
            prefix in "[a-z]{1,4}",
            ranges in prop::collection::vec((0_u32..500, 0_u32..20), 1..5),
            width in 1_usize..5,
        ) {
            let text: Vec<String> =
                ranges.iter().map(|(low, more)| format!("{low:0width$}-{:0width$}", low + more)).collect();
            let expected: Vec<String> = ranges
                .iter()
                .flat_map(|(low, more)| {
                    let width = width.max(low.to_string().len());
                    let prefix = prefix.clone();
                    (*low..=low + more).map(move |number| format!("{prefix}{number:0width$}"))
                })
                .collect();
            prop_assert_eq!(expand(&format!("{prefix}[{}]", text.join(","))).unwrap(), expected);
        }

        #[test]
        fn anything_is_answered(list in "[a-c0-9,\\[\\]\\- ü]{0,24}") {
            let _ = expand(&list);
        }
    }
}
