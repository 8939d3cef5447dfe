//! Walks a JSON text without building it: a filter call with 5,000 whole nodes holds megabytes of which a few
//! names are wanted.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// Deepest nesting that is followed.
const DEPTH_LIMIT: u32 = 128;

/// Why a text could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Something else was expected here.
    #[error("expected {expected} at byte {at}")]
    Expected {
        /// What.
        expected: &'static str,
        /// Where.
        at: usize,
    },
    /// The text ends inside a value.
    #[error("the text ends inside a value")]
    Truncated,
    /// Too many brackets inside brackets.
    #[error("more than 128 levels of brackets at byte {0}")]
    TooDeep(usize),
    /// A value that is no JSON, or not of its type.
    #[error("{0}")]
    Value(String),
}

/// A position in a JSON text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expected(&self, expected: &'static str) -> ScanError {
        if self.at >= self.text.len() {
            ScanError::Truncated
        } else {
            ScanError::Expected { expected, at: self.at }
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Whether nothing follows.
    pub(crate) fn end(mut self) -> Result<(), ScanError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.expected("the end of the text")) }
    }

    /// Takes a `null` if one is next.
    pub(crate) fn null(&mut self) -> bool {
        self.skip_space();
        let found = self.text.as_bytes()[self.at..].starts_with(b"null");
        self.at += if found { 4 } else { 0 };
        found
    }

    /// A string; borrowed unless it holds escapes.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, ScanError> {
        self.skip_space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.expected("a string"));
        }
        let escaped = self.pass_string()?;
        let quoted = &self.text[start..self.at];
        if escaped {
            return serde_json::from_str(quoted).map_err(|error| ScanError::Value(error.to_string()));
        }
        Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
    }

    /// Moves behind a string; whether it holds escapes.
    fn pass_string(&mut self) -> Result<bool, ScanError> {
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += quote_or_escape(&bytes[self.at..]).ok_or(ScanError::Truncated)?;
            if bytes[self.at] == b'"' {
                self.at += 1;
                return Ok(escaped);
            }
            escaped = true;
            self.at += 2;
            if self.at >= bytes.len() {
                return Err(ScanError::Truncated);
            }
        }
    }

    /// The text of the next value, whose brackets and strings are known to close; the rest of it is not looked
    /// at.
    pub(crate) fn raw(&mut self) -> Result<&'a str, ScanError> {
        self.skip_space();
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut depth = 0;
        // One bit for each open bracket: 1 for `{`, 0 for `[`.
        let mut open: u128 = 0;
        loop {
            match self.peek().ok_or(ScanError::Truncated)? {
                b'"' => {
                    self.pass_string()?;
                }
                bracket @ (b'{' | b'[') => {
                    if depth == DEPTH_LIMIT {
                        return Err(ScanError::TooDeep(self.at));
                    }
                    depth += 1;
                    open = (open << 1) | u128::from(bracket == b'{');
                    self.at += 1;
                    continue;
                }
                bracket @ (b'}' | b']') => {
                    if depth == 0 || (open & 1 == 1) != (bracket == b'}') {
                        return Err(self.expected("the other closing bracket"));
                    }
                    depth -= 1;
                    open >>= 1;
                    self.at += 1;
                }
                _ if depth == 0 => {
                    let rest = &bytes[self.at..];
                    let length = rest.iter().position(|byte| b",]} \n\r\t".contains(byte));
                    self.at += length.unwrap_or(rest.len());
                    if self.at == start {
                        return Err(self.expected("a value"));
                    }
                }
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }

    /// The text of the next value, which is valid JSON.
    pub(crate) fn valid(&mut self) -> Result<&'a str, ScanError> {
        let start = self.at;
        let text = self.raw()?;
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(text),
            Err(error) => Err(ScanError::Value(format!("the value at byte {start} is no JSON: {error}"))),
        }
    }

    /// A whole number.
    pub(crate) fn integer(&mut self) -> Result<i64, ScanError> {
        let text = self.raw()?;
        text.parse().map_err(|_| ScanError::Value(format!("`{text}` is not a whole number")))
    }

    /// Walks an object; `member` must consume the value of each key. A `null` has no members.
    pub(crate) fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        if self.null() {
            return Ok(());
        }
        if !self.take(b'{') {
            return Err(self.expected("an object"));
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.expected("a colon"));
            }
            member(self, &key)?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or the end of the object"));
            }
        }
    }

    /// Walks an array; `element` must consume each value. A `null` has no elements.
    pub(crate) fn elements(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        if self.null() {
            return Ok(());
        }
        if !self.take(b'[') {
            return Err(self.expected("an array"));
        }
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or the end of the array"));
            }
        }
    }
}

/// Where the next quote or backslash is, eight bytes at a time.
fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // The lowest set bit of the result marks the first byte that is zero; higher ones may be wrong.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().ok()?);
        let found = zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|rest| at + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn raw_values_end_where_they_end() {
        for (text, value) in [
            (r#"{"a":[1,"}]\""]}, 2"#, r#"{"a":[1,"}]\""]}"#),
            (" true]", "true"),
            ("-1.5e3,", "-1.5e3"),
            (r#""\\" "#, r#""\\""#),
        ] {
            assert_eq!(Scanner::new(text).raw(), Ok(value));
        }
    }

    #[test]
    fn broken_texts_are_refused() {
        for text in ["", "{", r#"{"a"#, r#""a\"#, "[}", "{]", "]", ","] {
            assert!(Scanner::new(text).raw().is_err(), "{text}");
        }
        assert_eq!(Scanner::new(&"[".repeat(200)).raw(), Err(ScanError::TooDeep(128)));
        for text in ["[1 2]", "[1,]", "{\"a\":nul}", "{\"a\" 1}"] {
            assert!(Scanner::new(text).valid().is_err(), "{text}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[\\PC\"\\\\]{0,20}".prop_map(serde_json::Value::String),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
                prop::collection::btree_map("[a-z\"\\\\]{0,9}", inner, 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_is_found_whole(value in json(), tail in "[,\\]} ]?") {
            let text = value.to_string();
            let followed = format!("{text}{tail}");
            prop_assert_eq!(Scanner::new(&followed).raw(), Ok(text.as_str()));
        }

        #[test]
        fn strings_are_read_as_serde_reads_them(text in "\\PC{0,30}") {
            let quoted = serde_json::Value::String(text.clone()).to_string();
            prop_assert_eq!(Scanner::new(&quoted).string().unwrap(), text);
        }

        #[test]
        fn nothing_panics(text in "[\\[\\]{}\",:\\\\a0 \u{e9}]{0,40}") {
            let _ = Scanner::new(&text).valid();
            let _ = Scanner::new(&text).string();
        }
    }
}
