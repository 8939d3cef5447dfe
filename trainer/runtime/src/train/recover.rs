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
use crate::sampler::Cursor;
use crate::tensor::Library;

impl<L: Library> Trainer<'_, L> {
    /// The same training in a new group, if the error is the loss of a rank that the options allow for.
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
        match self.regroup(interrupt, report)? {
            Some(trainer) if trainer.engine.world_size() >= fewest => Ok(trainer),
            _ => Err(error),
        }
    }

    /// The same training with the ranks that want to take part now.
    pub(super) fn change<W: Write>(
        self,
        interrupt: &mut Interrupt,
        report: &mut Report<W>,
    ) -> Result<Self, Error> {
        report.change(self.engine.rank(), self.engine.steps())?;
        let shares = "the state is in shares that nobody has copies of".to_owned();
        self.regroup(interrupt, report)?.ok_or(Error::Model { message: shares })
    }

    fn on_loss(&self) -> OnLoss {
        self.arguments.recovery.on_loss(self.attendance.is_some())
    }

    /// The same training in a new group; none if part of the state is lost.
    fn regroup<W: Write>(
        self,
        interrupt: &mut Interrupt,
        report: &mut Report<W>,
    ) -> Result<Option<Self>, Error> {
        let (rank, began, on_loss) = (self.engine.rank(), Instant::now(), self.on_loss());
        let Self { arguments, mut world, mut attendance, agreement, arena_bytes, engine, cursor, .. } = self;
        let holds_share = arguments.options(true).sharding != Sharding::None;
        let grace = if holds_share { SHARE_GRACE } else { Duration::ZERO };
        let mut words = cursor.to_words();
        // The other errors of joining must not be mistaken for a loss.
        let mut refused = None;
        let regrouped = engine.regroup(
            |communicator| {
                let joined = match (&mut attendance, on_loss, communicator) {
                    (Some(attendance), _, communicator) => {
                        drop(communicator);
                        let joined = {
                            come_together(attendance, agreement, arguments, arena_bytes, interrupt, grace)
                        };
                        joined.map(|(place, communicator)| {
                            world = place;
                            communicator
                        })
                    }
                    (None, OnLoss::Continue, Some(communicator)) => {
                        return communicator.rebuild(arguments.deadline);
                    }
                    (None, _, communicator) => {
                        drop(communicator);
                        agreement.join(arguments, &world, arena_bytes, interrupt, Duration::ZERO)
                    }
                };
                joined.map_err(|error| match error {
                    Error::Collective { source, .. } => source,
                    other => {
                        let message = other.to_string();
                        refused = Some(other);
                        muster_collectives::Error::InvalidArgument(message)
                    }
                })
            },
            &mut words,
        );
        let engine = match (regrouped, refused) {
            (Ok(engine), _) => engine,
            (Err(_), Some(refused)) => return Err(refused),
            (Err(parallel::Error::Options(_)), None) => return Ok(None),
            (Err(other), None) => return Err(Error::of_rank(rank)(other)),
        };
        report.regrouped(engine.rank(), engine.world_size(), engine.steps(), began.elapsed())?;
        // What was being written is of the ranks that were.
        drop(self.keeper);
        let keeper = Keeper::new(&arguments.checkpointing, &engine, self.described.to_json())?;
        let cursor = Cursor::from_words(words);
        let mut trainer = Self { world, attendance, engine, keeper, cursor, ..self };
        // A rank that is new sets out too.
        trainer.set_out(report)?;
        Ok(Some(trainer))
    }
}
