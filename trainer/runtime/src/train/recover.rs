//! Going on when a rank is lost.

use std::io::Write;
use std::time::Instant;

use super::checkpoints::Keeper;
use super::steps::Trainer;
use crate::arguments::OnLoss;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::parallel;
use crate::report::Report;
use crate::sampler::Cursor;

impl Trainer<'_> {
    /// The same training in a new group, if the error is the loss of a rank that the options allow for.
    pub(super) fn recover<W: Write>(
        self,
        error: Error,
        interrupt: &mut Interrupt,
        report: &mut Report<W>,
    ) -> Result<Self, Error> {
        let on_loss = self.arguments.recovery.on_loss;
        if on_loss == OnLoss::Exit || !error.is_loss() || interrupt.signal().is_some() {
            return Err(error);
        }
        let (rank, began) = (self.engine.rank(), Instant::now());
        report.loss(rank, self.engine.steps(), &error)?;
        let Self { arguments, world, agreement, arena_bytes, engine, cursor, .. } = self;
        let mut words = cursor.to_words();
        // The other errors of joining must not be mistaken for a loss.
        let mut refused = None;
        let regrouped = engine.regroup(
            |communicator| match (on_loss, communicator) {
                (OnLoss::Continue, Some(communicator)) => communicator.rebuild(arguments.deadline),
                (_, communicator) => {
                    drop(communicator);
                    agreement.join(arguments, world, arena_bytes, interrupt).map_err(|error| match error {
                        Error::Collective { source, .. } => source,
                        other => {
                            let message = other.to_string();
                            refused = Some(other);
                            muster_collectives::Error::InvalidArgument(message)
                        }
                    })
                }
            },
            &mut words,
        );
        let engine = match (regrouped, refused) {
            (Ok(engine), _) => engine,
            (Err(_), Some(refused)) => return Err(refused),
            (Err(parallel::Error::Options(_)), None) => return Err(error),
            (Err(other), None) => return Err(Error::of_rank(rank)(other)),
        };
        if engine.world_size() < arguments.recovery.min_ranks {
            return Err(error);
        }
        report.regrouped(engine.rank(), engine.world_size(), engine.steps(), began.elapsed())?;
        // What was being written is of the ranks that were.
        drop(self.keeper);
        let keeper = Keeper::new(&arguments.checkpointing, &engine, self.described.to_json())?;
        let mut trainer = Self { engine, keeper, cursor: Cursor::from_words(words), ..self };
        // A rank that is new sets out too.
        trainer.set_out(report)?;
        Ok(trainer)
    }
}
