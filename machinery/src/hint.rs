//! Errors that carry a hint: what the reader can do about them.

use std::error::Error;

/// An error that may know what the reader should do next.
pub trait Hint: Error {
    /// One sentence of advice, without a full stop; `None` when there is nothing useful to say.
    fn hint(&self) -> Option<String>;
}

/// The error and its sources as one line: `outer: middle: inner`, each part said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        // Many libraries already print their source; saying it twice helps nobody.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the topology")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn a_chain_names_each_cause_once() {
        let missing = || std::io::Error::other("no such file");
        assert_eq!(chain(&Outer(missing())), "cannot read the topology: no such file");
        assert_eq!(chain(&Repeats(missing())), "cannot start: no such file");
    }
}
