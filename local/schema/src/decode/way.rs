//! Where a value is in its body.

use std::fmt;

/// The way from the root of a body to a value, written out only when there is something to say about the value: most
/// values of most bodies are as they should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// The whole body.
    Root,
    /// A field of an object.
    Field(&'a Way<'a>, &'a str),
    /// An entry of a map.
    Key(&'a Way<'a>, &'a str),
    /// An item of a list.
    Item(&'a Way<'a>, usize),
}

impl Way<'_> {
    /// The names of the fields on the way; Go leaves out positions and the keys of maps.
    pub(super) fn fields(&self) -> Vec<&str> {
        match self {
            Self::Root => Vec::new(),
            Self::Key(above, _) | Self::Item(above, _) => above.fields(),
            Self::Field(above, name) => {
                let mut fields = above.fields();
                fields.push(name);
                fields
            }
        }
    }
}

/// As Kubernetes writes it: `spec.containers[0].name`.
impl fmt::Display for Way<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) | Self::Key(Self::Root, name) => formatter.write_str(name),
            Self::Field(above, name) | Self::Key(above, name) => write!(formatter, "{above}.{name}"),
            Self::Item(above, position) => write!(formatter, "{above}[{position}]"),
        }
    }
}
