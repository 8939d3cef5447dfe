//! Variables of the environment, as they are read. Pure.

use std::fmt::Display;

use crate::world::Error;

/// Variables that are set to something.
pub(crate) struct Variables<'a>(pub(crate) &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// Its text, if it is set and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// What it says, which should be what `expected` describes.
    pub(crate) fn parsed<T: std::str::FromStr>(
        &self,
        name: &'static str,
        expected: &str,
    ) -> Result<Option<T>, Error> {
        let parse = |value: String| {
            value.trim().parse().map_err(|_| Error::Invalid { name, value, expected: expected.to_owned() })
        };
        self.text(name).map(parse).transpose()
    }

    /// What two variables say that mean the same.
    pub(crate) fn agreed<T: std::str::FromStr + PartialEq + Display>(
        &self,
        [first, second]: [&'static str; 2],
        expected: &str,
        option: &'static str,
    ) -> Result<Option<T>, Error> {
        match (self.parsed::<T>(first, expected)?, self.parsed::<T>(second, expected)?) {
            (Some(one), Some(other)) if one != other => Err(Error::Disagreement {
                first,
                first_value: one.to_string(),
                second,
                second_value: other.to_string(),
                option,
            }),
            (one, other) => Ok(one.or(other)),
        }
    }
}
