//! The regular expressions of schemas (`pattern`). The same few, such as that of a quantity, come back hundreds of times
//! in each definition and are slow to compile, so that equal ones are one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use regex::Regex;

/// So many patterns are known before those that nobody uses any more are looked for.
const FIRST_SWEEP: usize = 256;

/// The patterns in use. It holds none of them, so that they go with the schemas that have them.
struct Known {
    by_text: HashMap<String, Weak<Regex>>,
    next_sweep: usize,
}

static KNOWN: LazyLock<Mutex<Known>> =
    LazyLock::new(|| Mutex::new(Known { by_text: HashMap::new(), next_sweep: FIRST_SWEEP }));

/// A regular expression that must match somewhere in a text.
#[derive(Clone)]
pub struct Pattern(Arc<Regex>);

impl Pattern {
    /// Compiles a regular expression, or takes an equal one that is there already.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).compiled(text).map(Self)
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it matches somewhere in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl Known {
    fn compiled(&mut self, text: &str) -> Result<Arc<Regex>, regex::Error> {
        if let Some(known) = self.by_text.get(text).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let regex = Arc::new(Regex::new(text)?);
        self.by_text.insert(text.to_owned(), Arc::downgrade(&regex));
        if self.by_text.len() >= self.next_sweep {
            self.by_text.retain(|_, known| known.strong_count() > 0);
            self.next_sweep = (self.by_text.len() * 2).max(FIRST_SWEEP);
        }
        Ok(regex)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_patterns_are_one_as_long_as_anybody_has_them() {
        let mut known = Known { by_text: HashMap::new(), next_sweep: FIRST_SWEEP };
        let first = known.compiled("^[0-9]+$").unwrap();
        assert!(Arc::ptr_eq(&first, &known.compiled("^[0-9]+$").unwrap()));
        for number in 0..FIRST_SWEEP {
            known.compiled(&number.to_string()).unwrap();
        }
        assert!(known.by_text.len() < FIRST_SWEEP, "{}", known.by_text.len());
        assert!(Arc::ptr_eq(&first, &known.compiled("^[0-9]+$").unwrap()));
        assert!(known.compiled("(").is_err());
    }
}
