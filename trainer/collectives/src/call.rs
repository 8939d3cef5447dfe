//! What a rank announces about the collective it enters, so that peers can tell a mismatch from a match.

use std::fmt;

use crate::element::{DataType, Reduction};

/// The kinds of collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Wait for every rank.
    Barrier,
    /// Reduce onto every rank.
    AllReduce,
    /// Copy from one rank to all.
    Broadcast,
    /// Concatenate the contributions of all ranks on every rank.
    AllGather,
    /// Reduce, and leave each rank its own part.
    ReduceScatter,
    /// Concatenate contributions of different lengths on every rank.
    AllGatherV,
    /// Reduce, and leave each rank its own part; parts differ in length.
    ReduceScatterV,
    /// Reduce onto one rank.
    Reduce,
    /// Concatenate the contributions of all ranks on one.
    Gather,
    /// Concatenate contributions of different lengths on one rank.
    GatherV,
    /// Give each rank its part of one rank's data.
    Scatter,
    /// Give each rank its part of one rank's data; parts differ in length.
    ScatterV,
    /// Give each rank a part of every rank's data.
    AllToAll,
    /// Give each rank a part of every rank's data; parts differ in length.
    AllToAllV,
    /// Pass a message to one rank.
    Send,
    /// Take a message from one rank.
    Receive,
}

impl Operation {
    const ALL: [Self; 16] = [
        Self::Barrier,
        Self::AllReduce,
        Self::Broadcast,
        Self::AllGather,
        Self::ReduceScatter,
        Self::AllGatherV,
        Self::ReduceScatterV,
        Self::Reduce,
        Self::Gather,
        Self::GatherV,
        Self::Scatter,
        Self::ScatterV,
        Self::AllToAll,
        Self::AllToAllV,
        Self::Send,
        Self::Receive,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Barrier => "barrier",
            Self::AllReduce => "all_reduce",
            Self::Broadcast => "broadcast",
            Self::AllGather => "all_gather",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGatherV => "all_gather_v",
            Self::ReduceScatterV => "reduce_scatter_v",
            Self::Reduce => "reduce",
            Self::Gather => "gather",
            Self::GatherV => "gather_v",
            Self::Scatter => "scatter",
            Self::ScatterV => "scatter_v",
            Self::AllToAll => "all_to_all",
            Self::AllToAllV => "all_to_all_v",
            Self::Send => "send",
            Self::Receive => "receive",
        }
    }

    /// Whether ranks may pass different numbers of elements.
    fn has_uneven_parts(self) -> bool {
        matches!(
            self,
            Self::AllGatherV | Self::ReduceScatterV | Self::GatherV | Self::ScatterV | Self::AllToAllV
        )
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| *operation as u8 == code)
    }
}

/// Where the data of a call lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// In a [`RegisteredBuffer`](crate::RegisteredBuffer): reduced where it lies.
    Registered,
    /// In private memory: copied through the arena.
    Staged,
}

/// One collective call, as every rank must make it at the same point of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Position of this call among the communicator's calls, from 0.
    pub index: u64,
    /// The collective.
    pub operation: Operation,
    /// Type of the elements; none for a barrier.
    pub data_type: Option<DataType>,
    /// Number of elements each rank passes in; its own part where parts differ in length.
    pub count: usize,
    /// How values are combined, where they are.
    pub reduction: Option<Reduction>,
    /// The rank that data comes from or goes to, where there is one.
    pub root: Option<usize>,
    /// Where the data lies.
    pub placement: Placement,
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "call {} {}(", self.index, self.operation.name())?;
        if let Some(data_type) = self.data_type {
            write!(formatter, "{} × {}", data_type.name(), self.count)?;
        }
        if let Some(reduction) = self.reduction {
            write!(formatter, ", {}", reduction.name())?;
        }
        if let Some(root) = self.root {
            let to = matches!(
                self.operation,
                Operation::Reduce | Operation::Gather | Operation::GatherV | Operation::Send
            );
            write!(formatter, ", {} rank {root}", if to { "to" } else { "from" })?;
        }
        if self.placement == Placement::Registered {
            write!(formatter, ", registered")?;
        }
        write!(formatter, ")")
    }
}

/// A call in the form written to shared memory; peers compare these words.
pub(crate) type Words = [u64; 4];

impl Call {
    pub(crate) fn to_words(self) -> Words {
        let kind = [
            self.operation as u8,
            self.data_type.map_or(0, DataType::code),
            self.reduction.map_or(0, Reduction::code),
            u8::from(self.placement == Placement::Registered),
            0,
            0,
            0,
            0,
        ];
        [self.index, u64::from_le_bytes(kind), self.count as u64, self.root.map_or(0, |root| root as u64 + 1)]
    }

    /// Whether ranks that announce these words make calls that fit together.
    pub(crate) fn fits(self, theirs: Words) -> bool {
        let mut ours = self.to_words();
        if self.operation.has_uneven_parts() {
            ours[2] = theirs[2];
        }
        ours == theirs
    }

    /// Whether a message announced by these words is the one that this call receives.
    pub(crate) fn receives(self, theirs: Words) -> bool {
        Self::from_words(theirs).is_some_and(|call| {
            call.operation == Operation::Send && call.data_type == self.data_type && call.count == self.count
        })
    }

    /// The call behind words, or `None` for words no version of this crate writes.
    pub(crate) fn from_words(words: Words) -> Option<Self> {
        let kind = words[1].to_le_bytes();
        Some(Self {
            index: words[0],
            operation: Operation::from_code(kind[0])?,
            data_type: DataType::from_code(kind[1]),
            count: usize::try_from(words[2]).ok()?,
            reduction: Reduction::from_code(kind[2]),
            root: usize::try_from(words[3]).ok()?.checked_sub(1),
            placement: if kind[3] == 1 { Placement::Registered } else { Placement::Staged },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for root in [None, Some(0), Some(7)] {
            let call = Call {
                index: 41,
                operation: Operation::AllReduce,
                data_type: Some(DataType::BF16),
                count: 4097,
                reduction: Some(Reduction::Average),
                root,
                placement: Placement::Registered,
            };
            assert_eq!(Call::from_words(call.to_words()), Some(call));
        }
    }

    #[test]
    fn calls_fit_when_all_but_the_length_of_uneven_parts_is_equal() {
        let call = |operation, count| Call {
            index: 1,
            operation,
            data_type: Some(DataType::I8),
            count,
            reduction: None,
            root: Some(1),
            placement: Placement::Staged,
        };
        assert!(!call(Operation::Gather, 3).fits(call(Operation::Gather, 4).to_words()));
        assert!(call(Operation::GatherV, 3).fits(call(Operation::GatherV, 4).to_words()));
        assert!(!call(Operation::GatherV, 3).fits(call(Operation::ScatterV, 3).to_words()));
        assert!(call(Operation::Receive, 3).receives(call(Operation::Send, 3).to_words()));
        assert!(!call(Operation::Receive, 3).receives(call(Operation::Send, 4).to_words()));
        assert_eq!(call(Operation::Gather, 3).to_string(), "call 1 gather(i8 × 3, to rank 1)");
        assert_eq!(call(Operation::Receive, 3).to_string(), "call 1 receive(i8 × 3, from rank 1)");
    }

    #[test]
    fn a_call_prints_as_the_program_wrote_it() {
        let call = Call {
            index: 3,
            operation: Operation::AllReduce,
            data_type: Some(DataType::F32),
            count: 10,
            reduction: Some(Reduction::Sum),
            root: None,
            placement: Placement::Registered,
        };
        assert_eq!(call.to_string(), "call 3 all_reduce(f32 × 10, sum, registered)");
    }
}
