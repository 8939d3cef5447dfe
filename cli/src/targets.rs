//! Objects as people name them on a command line: `pods`, `pods,services`, `pod web`, `pod/web job/digits`.

use crate::error::{Error, USAGE};
use crate::kinds::{Kind, Kinds};

/// One word of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Targets {
    /// All objects of these kinds.
    Kinds(Vec<String>),
    /// Objects by name: kind and name of each.
    Named(Vec<(String, String)>),
}

impl Targets {
    /// Reads `KINDS`, `KIND NAME…` or `KIND/NAME…`; `KINDS` are separated by commas.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Error> {
        let usage = |text: String| Error::new(text).with_code(USAGE);
        if words.iter().any(|word| word.contains('/')) {
            let pair = |word: &String| match word.split_once('/') {
                Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
                    Ok((kind.to_owned(), name.to_owned()))
                }
                Some(_) => Err(usage(format!("`{word}` is not KIND/NAME"))),
                None => {
                    Err(usage(format!("`{word}` stands beside KIND/NAME; give all objects as KIND/NAME")))
                }
            };
            return words.iter().map(pair).collect::<Result<_, _>>().map(Self::Named);
        }
        let Some((kinds, names)) = words.split_first() else {
            return Err(usage("which kind of object?".to_owned()));
        };
        let kinds: Vec<String> =
            kinds.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
        if names.is_empty() {
            return Ok(Self::Kinds(kinds));
        }
        let of_each_kind =
            |kind: &String| names.iter().map(move |name| (kind.clone(), name.clone())).collect();
        Ok(Self::Named(kinds.iter().flat_map::<Vec<_>, _>(of_each_kind).collect()))
    }
}

/// The kinds that a list of names means; a category such as `all` means several.
pub(crate) fn kinds_of<'a>(kinds: &'a Kinds, names: &[String]) -> Result<Vec<&'a Kind>, Error> {
    let mut found: Vec<&Kind> = Vec::new();
    for name in names {
        for kind in kinds.named(name)? {
            if !found.iter().any(|known| known.resource == kind.resource) {
                found.push(kind);
            }
        }
    }
    Ok(found)
}

/// The kind of one object.
pub(crate) fn kind_of<'a>(kinds: &'a Kinds, name: &str) -> Result<&'a Kind, Error> {
    match kinds.named(name)?.as_slice() {
        [kind] => Ok(kind),
        _ => Err(Error::new(format!("`{name}` means several kinds; name one of them")).with_code(USAGE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Targets, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Targets::parse(&words).map_err(|error| error.to_string())
    }

    fn named(pairs: &[(&str, &str)]) -> Targets {
        Targets::Named(pairs.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect())
    }

    #[test]
    fn every_form_that_kubectl_knows_is_read() {
        assert_eq!(parse("pods,svc"), Ok(Targets::Kinds(vec!["pods".into(), "svc".into()])));
        assert_eq!(parse("pods a b"), Ok(named(&[("pods", "a"), ("pods", "b")])));
        assert_eq!(parse("pod/a job/b"), Ok(named(&[("pod", "a"), ("job", "b")])));
        assert_eq!(parse("pod,svc a"), Ok(named(&[("pod", "a"), ("svc", "a")])));
    }

    #[test]
    fn forms_are_not_mixed() {
        assert!(parse("pod/a b").is_err_and(|error| error.starts_with("`b` stands beside KIND/NAME")));
        assert!(parse("pod/").is_err_and(|error| error == "`pod/` is not KIND/NAME"));
        assert!(parse("").is_err());
    }
}
