//! Going on after ranks were lost: the same training in another group.

use std::time::Duration;

use muster_collectives::{Communicator, Error as CollectiveError};

use super::gradients::Gradients;
use super::group::Forming;
use super::layout::Unit;
use super::parameters::Parameters;
use super::{Engine, Error, Sharding, declared, layout};
use crate::optimizer::Moments;
use crate::tensor::Library;

impl<L: Library> Engine<L> {
    /// Goes on in the group that `form` makes out of the one that has failed, which is there unless its thread broke:
    /// of the ranks that are left ([`Communicator::rebuild`]), or of all ranks once lost ones have been started again
    /// ([`Communicator::connect`]).
    ///
    /// Ranks that lag behind take parameters, optimizer state and `cursor` from the one that is furthest. Some may be one
    /// step behind the others; what was computed of the step that failed is lost. Newcomers call
    /// [`agree`](Self::agree) instead.
    ///
    /// # Errors
    /// Where state is sharded, the share of a lost rank is gone: start again from a checkpoint.
    pub fn regroup(
        self,
        form: impl FnOnce(Option<Communicator>) -> Result<Communicator, CollectiveError>,
        cursor: &mut [u64],
    ) -> Result<Self, Error> {
        let Self { library, model, options, group, parameters, moments, step, waited, .. } = self;
        let Parameters::Replicated(values) = parameters else {
            return Err(Error::Options(
                "the lost rank's share of the training state is gone: start again from a checkpoint".into(),
            ));
        };
        let waited = waited + group.waited();
        let communicator = form(group.disband())?;
        let ranks = communicator.world_size();
        let units = layout::units(&declared(&model), options.smallest_unit, ranks);
        let mut group = Forming::new(communicator, ranks)?;
        let gradients = Gradients::new(&mut group, &units, &options)?;
        let refit = |values: Vec<Vec<f32>>| -> Vec<Vec<f32>> {
            values.into_iter().zip(&units).map(|(values, unit)| refitted(values, unit)).collect()
        };
        let (first, second): (Vec<_>, Vec<_>) =
            moments.into_iter().map(|Moments { first, second }| (first, second)).unzip();
        let moments = refit(first).into_iter().zip(refit(second));
        let moments = moments.map(|(first, second)| Moments { first, second }).collect();
        let parameters = Parameters::Replicated(refit(values));
        let group = group.start()?;
        let mut engine =
            Self { library, model, options, group, units, parameters, gradients, moments, step, waited };
        engine.agree(cursor)?;
        Ok(engine)
    }

    /// Brings ranks that lag behind to the state of the one that is furthest; `cursor` is what the caller knows of the
    /// place in its data. A collective call; gives the steps that the training has taken.
    pub fn agree(&mut self, cursor: &mut [u64]) -> Result<u64, Error> {
        let steps = self.group.gather(self.step)?;
        let furthest = steps.iter().max().copied().unwrap_or_default();
        if steps.iter().all(|step| *step == furthest) {
            return Ok(furthest);
        }
        if self.options.sharding != Sharding::None {
            return Err(Error::Options("ranks that share their state are at different steps".into()));
        }
        let source = steps.iter().position(|step| *step == furthest).unwrap_or_default();
        let words = cursor.iter().map(|word| word.cast_signed()).collect();
        let words: Vec<i64> = self.group.broadcast(words, source)?;
        cursor.iter_mut().zip(words).for_each(|(word, told)| *word = told.cast_unsigned());
        if let Parameters::Replicated(units) = &mut self.parameters {
            for values in units {
                *values = self.group.broadcast(std::mem::take(values), source)?;
            }
        }
        for Moments { first, second } in &mut self.moments {
            *first = self.group.broadcast(std::mem::take(first), source)?;
            *second = self.group.broadcast(std::mem::take(second), source)?;
        }
        self.step = furthest;
        Ok(furthest)
    }

    /// Time that this rank has waited for collectives that its computation did not hide.
    pub fn exposed_communication(&self) -> Duration {
        self.waited + self.group.waited()
    }
}

/// The values of a unit, filled up as another number of ranks needs it.
fn refitted(mut values: Vec<f32>, unit: &Unit) -> Vec<f32> {
    values.truncate(unit.count);
    values.resize(unit.padded, 0.0);
    values
}
