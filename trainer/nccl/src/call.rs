//! What a rank was doing, for errors.

use std::fmt;

use muster_collectives::{DataType, Reduction};

/// One call of a communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Position of this call among the communicator's calls, from 0: equal on ranks that make the same calls.
    pub index: u64,
    /// The collective.
    pub name: &'static str,
    /// Type of the elements.
    pub data_type: DataType,
    /// Number of elements.
    pub count: usize,
    /// How values are combined, where they are.
    pub reduction: Option<Reduction>,
    /// The rank that data comes from or goes to, where there is one.
    pub peer: Option<Peer>,
}

/// The other end of a call that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Data comes from this rank.
    From(usize),
    /// Data goes to this rank.
    To(usize),
}

impl Peer {
    pub(crate) fn rank(self) -> usize {
        match self {
            Self::From(rank) | Self::To(rank) => rank,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "call {} {}({} × {}", self.index, self.name, self.data_type.name(), self.count)?;
        if let Some(reduction) = self.reduction {
            write!(formatter, ", {}", reduction.name())?;
        }
        match self.peer {
            Some(Peer::From(rank)) => write!(formatter, ", from rank {rank}")?,
            Some(Peer::To(rank)) => write!(formatter, ", to rank {rank}")?,
            None => {}
        }
        formatter.write_str(")")
    }
}
