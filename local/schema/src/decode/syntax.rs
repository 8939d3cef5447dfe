//! What is wrong with a text that is not JSON, in the words of Go's scanner, which people search the web for.

/// What the scanner expects next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    ValueOrEnd,
    KeyOrEnd,
    Key,
    Colon,
    AfterField,
    AfterItem,
    End,
}

/// The first mistake in `text`; nothing when it is one JSON value.
pub(super) fn mistake(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, place: 0 };
    let mut open = Vec::new();
    let mut state = State::Value;
    loop {
        scanner.skip_spaces();
        let Some(byte) = scanner.peek() else {
            return (state != State::End).then(|| "unexpected end of JSON input".to_owned());
        };
        state = match (state, byte) {
            (State::ValueOrEnd | State::AfterItem, b']') | (State::KeyOrEnd | State::AfterField, b'}') => {
                scanner.close(&mut open)
            }
            (State::Value | State::ValueOrEnd, b'{') => {
                scanner.open(&mut open, State::AfterField, State::KeyOrEnd)
            }
            (State::Value | State::ValueOrEnd, b'[') => {
                scanner.open(&mut open, State::AfterItem, State::ValueOrEnd)
            }
            (State::Value | State::ValueOrEnd, _) => {
                if let Err(error) = scanner.scalar(byte) {
                    return Some(error);
                }
                open.last().copied().unwrap_or(State::End)
            }
            (State::KeyOrEnd | State::Key, b'"') => {
                if let Err(error) = scanner.string() {
                    return Some(error);
                }
                State::Colon
            }
            (State::KeyOrEnd | State::Key, _) => {
                return Some(scanner.invalid("looking for beginning of object key string"));
            }
            (State::Colon, b':') | (State::AfterItem, b',') => scanner.step(State::Value),
            (State::Colon, _) => return Some(scanner.invalid("after object key")),
            (State::AfterField, b',') => scanner.step(State::Key),
            (State::AfterField, _) => return Some(scanner.invalid("after object key:value pair")),
            (State::AfterItem, _) => return Some(scanner.invalid("after array element")),
            (State::End, _) => return Some(scanner.invalid("after top-level value")),
        };
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    place: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.place).copied()
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.place += 1;
        }
    }

    fn step(&mut self, next: State) -> State {
        self.place += 1;
        next
    }

    fn open(&mut self, open: &mut Vec<State>, after: State, next: State) -> State {
        open.push(after);
        self.step(next)
    }

    fn close(&mut self, open: &mut Vec<State>) -> State {
        open.pop();
        self.step(open.last().copied().unwrap_or(State::End))
    }

    fn invalid(&self, context: &str) -> String {
        match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", quoted(byte)),
        }
    }

    fn scalar(&mut self, first: u8) -> Result<(), String> {
        match first {
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.invalid("looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for (index, letter) in word.bytes().enumerate() {
            if self.peek() != Some(letter) {
                return Err(self
                    .invalid(&format!("in literal {word} (expecting {})", quoted(word.as_bytes()[index]))));
            }
            self.place += 1;
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.invalid(context));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.place += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.place += 1;
        }
        if self.peek() == Some(b'0') {
            self.place += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.place += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.place += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.place += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.place += 1;
        loop {
            match self.peek() {
                None => return Err("unexpected end of JSON input".to_owned()),
                Some(b'"') => break,
                Some(b'\\') => {
                    self.place += 1;
                    match self.peek() {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {}
                        Some(b'u') => {
                            for _ in 0..4 {
                                self.place += 1;
                                if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return Err(self.invalid("in \\u hexadecimal character escape"));
                                }
                            }
                        }
                        _ => return Err(self.invalid("in string escape code")),
                    }
                }
                Some(0..=0x1f) => return Err(self.invalid("in string literal")),
                Some(_) => {}
            }
            self.place += 1;
        }
        self.place += 1;
        Ok(())
    }
}

/// A byte in Go's quotes.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        other => format!("'{}'", char::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mistakes_in_words_of_go() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{bad json", "invalid character 'b' looking for beginning of object key string"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("nul ", "invalid character ' ' in literal null (expecting 'l')"),
            ("01", "invalid character '1' after top-level value"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("'a'", "invalid character '\\'' looking for beginning of value"),
        ];
        for (text, expected) in cases {
            assert_eq!(mistake(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_parser(text in r#"[\[\]{},:"a1\-. tnul]{0,12}"#) {
            let valid = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(mistake(text.as_bytes()).is_none(), valid, "{}", text);
        }
    }
}
