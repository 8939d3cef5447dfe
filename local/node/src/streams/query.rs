//! What the query of a stream's request asks for.

use percent_encoding::percent_decode_str;

/// The options of `exec` and `attach`, as kubelets name them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CommandOptions {
    /// The program and its arguments; none when attaching.
    pub(crate) argv: Vec<String>,
    /// Standard input.
    pub(crate) input: bool,
    /// Standard output.
    pub(crate) output: bool,
    /// Standard error.
    pub(crate) error: bool,
    /// On a terminal.
    pub(crate) terminal: bool,
}

/// What is wrong with the query of a stream's request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// No stream at all.
    #[error("you must specify at least 1 of stdin, stdout, stderr")]
    NoStream,
    /// A port.
    #[error("port \"{0}\" is not a number from 1 to 65535")]
    Port(String),
    /// No port where one must be named.
    #[error("query parameter \"port\" is required")]
    NoPort,
    /// More ports than a channel's byte can name.
    #[error("{0} ports in one connection are too many; at most {MOST_PORTS}")]
    TooManyPorts(usize),
}

/// Ports of one connection: each has two channels, which a byte names.
const MOST_PORTS: usize = 127;

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

impl CommandOptions {
    /// Reads a query.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut options = Self::default();
        for (name, value) in pairs(query) {
            let flag = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "command" => options.argv.push(value),
                "input" => options.input = flag,
                "output" => options.output = flag,
                "error" => options.error = flag,
                "tty" => options.terminal = flag,
                _ => {}
            }
        }
        // A terminal has one output.
        options.error &= !options.terminal;
        if !(options.input || options.output || options.error) {
            return Err(QueryError::NoStream);
        }
        Ok(options)
    }
}

/// The ports of a `port-forward` whose connection names them beforehand.
pub(crate) fn ports(query: &str) -> Result<Vec<u16>, QueryError> {
    let mut found = Vec::new();
    for (_, value) in pairs(query).filter(|(name, _)| name == "port") {
        // Clients name several in one parameter as well.
        for text in value.split(',') {
            let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
            found.push(port.ok_or_else(|| QueryError::Port(text.to_owned()))?);
        }
    }
    match found.len() {
        0 => Err(QueryError::NoPort),
        count if count > MOST_PORTS => Err(QueryError::TooManyPorts(count)),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_keeps_its_words() {
        let options = CommandOptions::parse("command=sh&command=-c&command=echo%20a%2Bb+c&output=1&error=1");
        let options = options.unwrap();
        assert_eq!(options.argv, ["sh", "-c", "echo a+b c"]);
        assert!(options.output && options.error && !options.input && !options.terminal);
        assert_eq!(CommandOptions::parse("command=sh"), Err(QueryError::NoStream));
        let options = CommandOptions::parse("output=1&error=1&tty=1").unwrap();
        assert!(options.terminal && !options.error, "a terminal has one output");
    }

    #[test]
    fn ports_are_numbers() {
        assert_eq!(ports("port=80&port=443"), Ok(vec![80, 443]));
        assert_eq!(ports("port=80,81"), Ok(vec![80, 81]));
        assert_eq!(ports(""), Err(QueryError::NoPort));
        assert_eq!(ports("port=0"), Err(QueryError::Port("0".into())));
        assert_eq!(ports("port=x"), Err(QueryError::Port("x".into())));
        assert_eq!(ports(&vec!["port=1"; 128].join("&")), Err(QueryError::TooManyPorts(128)));
    }
}
