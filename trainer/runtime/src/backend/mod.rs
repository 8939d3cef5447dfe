//! Adapters to tensor libraries. Parameters and gradients cross this border as flat `f32` slices, so that the
//! rest of the trainer knows no library.

mod candle;

pub(crate) use candle::CandleNetwork;

/// Why an adapter failed.
#[derive(Debug)]
pub(crate) enum Error {
    /// The library refused an operation.
    Library(String),
    /// The named parameter received no gradient.
    NoGradient(String),
}

impl Error {
    pub(crate) fn on(self, rank: usize) -> crate::Error {
        match self {
            Self::Library(message) => crate::Error::Tensor { rank, message },
            Self::NoGradient(parameter) => crate::Error::NoGradient { rank, parameter },
        }
    }
}

/// What a batch gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct BatchOutcome {
    /// Mean cross-entropy.
    pub(crate) loss: f32,
    /// Samples whose class came out on top.
    pub(crate) correct: usize,
}
