//! Going on in another group: when a rank is lost, and when ranks come and go.

use std::io::Write;
use std::time::{Duration, Instant};

use super::checkpoints::Keeper;
use super::steps::Trainer;
use super::{SHARE_GRACE, come_together};
use crate::arguments::OnLoss;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::parallel::{self, Sharding};
use crate::report::Report;
use crate::tensor::Library;

/// Why no group came about.
struct NotFormed(Error);

impl From<parallel::Error> for NotFormed {
    fn from(error: parallel::Error) -> Self {
        Self(Error::of_rank(0)(error))
    }
}

impl From<Error> for NotFormed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl<L: Library> Trainer<'_, L> {
    /// The same training in a new group, if the error is the loss of a rank that the options allow for. The ranks of it
    /// have to [agree](Trainer::begin) next.
    pub(super) fn recover<W: Write>(
        self,
        error: Error,
        interrupt: &mut Interrupt,
        report: &mut Report<W>,
    ) -> Result<Self, Error> {
        let on_loss = self.on_loss();
        if on_loss == OnLoss::Exit || !error.is_loss() || interrupt.signal().is_some() {
            return Err(error);
        }
        report.loss(self.engine.rank(), self.engine.steps(), &error)?;
        let fewest = self.arguments.recovery.min_ranks;
        match self.regroup(interrupt) {
            Ok(trainer) if trainer.engine.world_size() < fewest => Err(error),
            // What was lost first says more than what was lost with it.
            Err(Error::StateGone { .. }) => Err(error),
            regrouped => regrouped,
        }
    }

    /// The same training with the ranks that want to take part now; they have to agree next.
    pub(super) fn change<W: Write>(
        self,
        interrupt: &mut Interrupt,
        report: &mut Report<W>,
    ) -> Result<Self, Error> {
        report.change(self.engine.rank(), self.engine.steps())?;
        self.regroup(interrupt)
    }

    fn on_loss(&self) -> OnLoss {
        self.arguments.recovery.on_loss(self.attendance.is_some())
    }

    /// The same training in a new group.
    fn regroup(self, interrupt: &mut Interrupt) -> Result<Self, Error> {
        let (began, on_loss) = (Instant::now(), self.on_loss());
        let Self { arguments, mut world, mut attendance, agreement, arena_bytes, engine, .. } = self;
        let holds_share = arguments.options(true).sharding != Sharding::None;
        let grace = if holds_share { SHARE_GRACE } else { Duration::ZERO };
        let rank = engine.rank();
        let regrouped = engine.regroup(|communicator| -> Result<_, NotFormed> {
            match (&mut attendance, on_loss, communicator) {
                (Some(attendance), _, communicator) => {
                    drop(communicator);
                    let (place, communicator) =
                        come_together(attendance, agreement, arguments, arena_bytes, interrupt, grace)?;
                    world = place;
                    Ok(communicator)
                }
                (None, OnLoss::Continue, Some(communicator)) => {
                    let rebuilt = communicator.rebuild(arguments.deadline);
                    rebuilt.map_err(|source| NotFormed(Error::Collective { rank, source }))
                }
                (None, _, communicator) => {
                    drop(communicator);
                    Ok(agreement.join(arguments, &world, arena_bytes, interrupt, Duration::ZERO, None)?)
                }
            }
        });
        let engine = regrouped.map_err(|NotFormed(error)| error)?;
        // What was being written is of the ranks that were.
        drop(self.keeper);
        let keeper = Keeper::new(&arguments.checkpointing, &engine, self.described.to_json())?;
        Ok(Self { world, attendance, engine, keeper, regrouped: Some(began), ..self })
    }
}
