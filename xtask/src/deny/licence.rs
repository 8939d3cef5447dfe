//! Licence expressions of SPDX, as crates state them: `MIT OR Apache-2.0`, `(A OR B) AND C`, and the old `A/B`.

/// Whether the allowed licences suffice for an expression. What cannot be read is not allowed.
pub(super) fn allows(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut reader = Reader { words: spaced.split_whitespace().collect(), allowed };
    reader.words.reverse();
    reader.either().is_some_and(|fine| fine && reader.words.is_empty())
}

struct Reader<'a> {
    /// What is still to be read, last word first.
    words: Vec<&'a str>,
    allowed: &'a [String],
}

impl Reader<'_> {
    fn takes(&mut self, word: &str) -> bool {
        let there = self.words.last() == Some(&word);
        if there {
            self.words.pop();
        }
        there
    }

    /// `A OR B`; AND binds closer.
    fn either(&mut self) -> Option<bool> {
        let mut fine = self.both()?;
        while self.takes("OR") {
            fine |= self.both()?;
        }
        Some(fine)
    }

    fn both(&mut self) -> Option<bool> {
        let mut fine = self.one()?;
        while self.takes("AND") {
            fine &= self.one()?;
        }
        Some(fine)
    }

    fn one(&mut self) -> Option<bool> {
        if self.takes("(") {
            let fine = self.either()?;
            return self.takes(")").then_some(fine);
        }
        let mut licence = self.words.pop()?.to_owned();
        if self.takes("WITH") {
            licence = format!("{licence} WITH {}", self.words.pop()?);
        }
        Some(self.allowed.contains(&licence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        let allowed = ["MIT".to_owned(), "ISC".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        for fine in ["MIT", "GPL-3.0 OR MIT", "MIT AND ISC", "Unlicense/MIT", "(GPL-3.0 OR MIT) AND ISC"] {
            assert!(allows(fine, &allowed), "{fine}");
        }
        assert!(allows("Apache-2.0 WITH LLVM-exception OR Apache-2.0", &allowed));
        for not in ["Apache-2.0", "MIT AND GPL-3.0", "GPL-3.0 OR ISC AND BSL-1.0", "", "(MIT", "MIT ISC"] {
            assert!(!allows(not, &allowed), "{not}");
        }
    }
}
