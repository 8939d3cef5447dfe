//! Why a rank could not train.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use muster_rendezvous::MemberError;
use nix::sys::signal::Signal;

use crate::data;
use crate::parallel;
use crate::world;

/// A failure of one rank.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment does not say which rank this is.
    #[error(transparent)]
    World(#[from] world::Error),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The ranks could not work together.
    #[error("rank {rank}: {source}")]
    Collective {
        /// This rank.
        rank: usize,
        /// What happened.
        source: muster_collectives::Error,
    },
    /// The rendezvous gave no place.
    #[error(transparent)]
    Rendezvous(#[from] MemberError),
    /// The tensor library failed, or left a parameter without a gradient.
    #[error("rank {rank}: {source}")]
    Tensor {
        /// This rank.
        rank: usize,
        /// What happened.
        source: crate::tensor::Error,
    },
    /// The configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// Options do not describe a model that fits the data, or a way to share it.
    #[error("{message}")]
    Model {
        /// Which, and why.
        message: String,
    },
    /// This program was built without libtorch.
    #[error(
        "--library libtorch: this program was built without it; in Muster's source, `cargo xtask libtorch` gets it, and \
         `cargo build --release -p muster-trainer-runtime --features libtorch` builds muster-train with it"
    )]
    NoLibtorch,
    /// Training went astray.
    #[error("the loss is {loss} at step {step}; try a smaller --learning-rate")]
    LossNotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss averaged over the ranks.
        loss: f32,
    },
    /// Two ranks read different data.
    #[error("rank {rank} loaded other data from {} than rank 0", path.display())]
    DataDiffers {
        /// The first rank that differs.
        rank: usize,
        /// The path on this rank.
        path: PathBuf,
    },
    /// Two ranks were started with different settings.
    #[error("rank {rank} was started with other settings than rank 0")]
    SettingsDiffer {
        /// The first rank that differs.
        rank: usize,
    },
    /// The ranks ended with different parameters: a fault of the trainer or of the machine.
    #[error("rank {rank} ended with other parameters than rank 0")]
    ParametersDiffer {
        /// The first rank that differs.
        rank: usize,
    },
    /// There are too few samples for the ranks.
    #[error(
        "{samples} training samples are too few: every rank needs one for each of its batches, {needed} in all"
    )]
    TooFewSamples {
        /// Training samples.
        samples: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The model could not be written.
    #[error("cannot write the model to {}: {source}", path.display())]
    Write {
        /// Where it should have gone.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A checkpoint could not be written or read.
    #[error("checkpoint: {message}")]
    Checkpoint {
        /// What happened.
        message: String,
    },
    /// TensorBoard's event file could not be begun.
    #[error("--tensorboard {}: {source}", folder.display())]
    Events {
        /// Its folder.
        folder: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Metrics cannot be served.
    #[error("--metrics-listen {address}: {message}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        message: String,
    },
    /// The trace could not be begun.
    #[error("--profile {}: {source}", path.display())]
    Profile {
        /// Its file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("cannot write metrics: {0}")]
    Report(#[source] io::Error),
    /// The process could not be set up.
    #[error("cannot {action}: {message}")]
    Setup {
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        message: String,
    },
    /// This rank was asked to stop, and did so between two steps.
    #[error("stopped by {signal}")]
    Interrupted {
        /// The signal.
        signal: Signal,
    },
    /// Ranks that held a part of the state are lost.
    #[error(
        "rank {rank}: a lost rank's share of the training state is gone; a restart goes on from the newest checkpoint"
    )]
    StateGone {
        /// This rank.
        rank: usize,
    },
    /// A rank that wants to join was started for another training; it ends, and the others go on.
    #[error("rank {rank} was started with other settings or data than the others")]
    Stranger {
        /// It.
        rank: usize,
    },
    /// Another rank was asked to stop.
    #[error("rank {rank} stopped because another rank was asked to stop")]
    StoppedWithOthers {
        /// This rank.
        rank: usize,
    },
}

impl Error {
    /// What a rank's engine reports.
    pub(crate) fn of_rank(rank: usize) -> impl Fn(parallel::Error) -> Self + Copy {
        move |error| match error {
            parallel::Error::Tensor(source) => Self::Tensor { rank, source },
            parallel::Error::Collective(source) => Self::Collective { rank, source },
            parallel::Error::Options(message) => Self::Model { message },
            parallel::Error::Gone => Self::StateGone { rank },
        }
    }

    /// Whether another rank was lost, and this one could go on with others.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Collective { source, .. } if is_transient(source))
            || matches!(self, Self::Stranger { .. })
    }

    /// The exit code that tells a controller whether a restart can help: codes from 128 on say that it can.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::World(_)
            | Self::Config(_)
            | Self::Model { .. }
            | Self::NoLibtorch
            | Self::Events { .. }
            | Self::Metrics { .. }
            | Self::Profile { .. } => 2,
            Self::Interrupted { signal } => 128 + *signal as u8,
            Self::Collective { source, .. } if is_transient(source) => 138,
            Self::StoppedWithOthers { .. }
            | Self::StateGone { .. }
            | Self::Stranger { .. }
            | Self::Rendezvous(MemberError::Timeout { .. }) => 138,
            // Nothing is left to do, and nothing went wrong.
            Self::Rendezvous(MemberError::Over) => 0,
            _ => 1,
        }
    }
}

fn is_transient(error: &muster_collectives::Error) -> bool {
    use muster_collectives::Error as Collective;
    matches!(
        error,
        Collective::PeerLost { .. }
            | Collective::Timeout { .. }
            | Collective::NotJoined { .. }
            | Collective::NoRendezvous { .. }
            | Collective::NotFormed { .. }
            | Collective::CalledOff { .. }
            | Collective::Aborted { .. }
            | Collective::GivenUp { .. }
            | Collective::Minority { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_what_a_restart_can_cure() {
        let lost = muster_collectives::Error::PeerLost {
            rank: 2,
            host: "digits-worker-1".into(),
            cause: muster_collectives::LossCause::Died,
        };
        let error = Error::Collective { rank: 0, source: lost };
        assert_eq!(error.exit_code(), 138);
        assert_eq!(
            error.to_string(),
            "rank 0: lost rank 2 on digits-worker-1: its process ended (killed, crashed or exited early)"
        );
        assert_eq!(Error::Interrupted { signal: Signal::SIGTERM }.exit_code(), 143);
        assert_eq!(Error::LossNotFinite { step: 1, loss: f32::NAN }.exit_code(), 1);
    }
}
