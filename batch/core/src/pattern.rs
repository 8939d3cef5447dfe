//! Names of output files with `%j`, `%A`, `%a`, `%x`, `%u`, `%N` and `%%` in them.

/// What is known of a job when it is submitted.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its number.
    pub id: u64,
    /// Whether it is an array; then the number of a task is not known yet.
    pub array: bool,
    /// Its name.
    pub name: &'a str,
    /// Who submitted it.
    pub user: &'a str,
}

/// Fills in what is known; what only the pod knows (`%a`, `%N`, and `%j` of an array's task) stays for it to fill in.
pub fn fill(pattern: &str, known: Known<'_>) -> String {
    // What is filled in is not read again.
    let plain = |text: &str| text.replace('%', "%%");
    let mut filled = String::new();
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        if next != '%' {
            filled.push(next);
            continue;
        }
        match rest.next() {
            Some('j') if !known.array => filled.push_str(&known.id.to_string()),
            Some('A' | 'J') => filled.push_str(&known.id.to_string()),
            Some('x') => filled.push_str(&plain(known.name)),
            Some('u') => filled.push_str(&plain(known.user)),
            // The batch step is one task, on the first node.
            Some('n' | 't') => filled.push('0'),
            Some(other @ ('a' | 'j' | 'N' | '%')) => filled.extend(['%', other]),
            Some(other) => filled.extend(['%', '%', other]),
            None => filled.push_str("%%"),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_filled_in_and_the_rest_kept() {
        let known = Known { id: 17, array: false, name: "a%jb", user: "eve" };
        assert_eq!(fill("slurm-%j.out", known), "slurm-17.out");
        assert_eq!(fill("%x-%u-%A-%a-%N-%%-%q-%", known), "a%%jb-eve-17-%a-%N-%%-%%q-%%");
        assert_eq!(fill("%A_%a-%j", Known { array: true, ..known }), "17_%a-%j");
    }
}
