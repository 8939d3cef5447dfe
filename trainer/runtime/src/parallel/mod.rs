//! Training on several ranks: replicated parameters (DDP), or parameters, gradients and optimizer state in shares
//! (ZeRO 1 to 3, the last also known as FSDP).
//!
//! [`Engine`] computes unit by unit. While one unit is computed, the gradients of the last one are reduced and the
//! parameters of the next one gathered by a thread of its own.

mod compute;
mod gradients;
mod group;
mod layout;
mod mirror;
mod options;
mod parameters;
mod recover;
mod state;

use std::ops::Range;
use std::time::Duration;

use muster_collectives::Communicator;

use crate::model::{Input, Model, Parameter};
use crate::observe::{Detail, Recorder, Track};
use crate::optimizer::{Moments, StepRate};
use crate::tensor::{self, Library};
use gradients::Gradients;
use group::Group;
use layout::Unit;
use mirror::{History, Mirror};
pub use options::{GradientType, Options, Sharding};
use parameters::Parameters;
pub use state::{Piece, Quantity};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
    /// The ranks could not work together. [`Engine`] can go no further.
    #[error(transparent)]
    Collective(#[from] muster_collectives::Error),
    /// Options do not fit each other or the group.
    #[error("{0}")]
    Options(String),
    /// Ranks that held a part of the state are lost, and whoever had a copy of it.
    #[error("a lost rank's share of the training state is gone: start again from a checkpoint")]
    Gone,
}

/// What a batch gave on this rank.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchOutcome {
    /// Mean cross-entropy, in nats.
    pub loss: f32,
    /// Labels that had the highest score.
    pub correct: usize,
}

/// What all ranks know after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome<const N: usize> {
    /// The values that were passed in, averaged over all ranks.
    pub averages: [f32; N],
    /// The norm of the gradients over all parameters, before they were clipped; only known where clipping is asked for.
    pub gradient_norm: Option<f32>,
}

/// One rank's part of a training: model, parameters, gradients, optimizer.
pub struct Engine<L: Library> {
    library: L,
    model: Model<L>,
    options: Options,
    group: Group,
    units: Vec<Unit>,
    parameters: Parameters,
    gradients: Gradients,
    moments: Vec<Moments>,
    step: u64,
    /// Copies of shares, where they are asked for.
    mirror: Option<Mirror>,
    /// What this rank brings along from an earlier group, until the ranks of this one have agreed.
    history: Option<History>,
    /// Time waited for collectives of earlier groups.
    waited: Duration,
}

impl<L: Library> Engine<L> {
    /// Bytes that [`muster_collectives::Options::arena_bytes`] must at least have for this model.
    pub fn arena_bytes(model: &Model<L>, options: &Options, world_size: usize) -> usize {
        let ranks = options.ranks(world_size);
        let units = layout::units(&declared(model), options.smallest_unit, ranks);
        gradients::arena_bytes(&units, options) + parameters::arena_bytes(&units, options.sharding)
    }

    /// Sets the training up, with the parameters that `seed` gives.
    pub fn new(
        library: L,
        model: Model<L>,
        communicator: Communicator,
        options: Options,
        seed: u64,
    ) -> Result<Self, Error> {
        Self::form(library, model, communicator, options, |unit| parameters::seeded(unit, seed))
    }

    /// Sets the training up, where each unit begins with what `initial` gives for it.
    fn form(
        library: L,
        model: Model<L>,
        communicator: Communicator,
        options: Options,
        initial: impl FnMut(&Unit) -> Vec<f32>,
    ) -> Result<Self, Error> {
        let ranks = options.ranks(communicator.world_size());
        if options.keeps_mirror() && ranks != communicator.world_size() {
            return Err(Error::Options("copies of shares need shares over all ranks".into()));
        }
        if ranks == 0 || !communicator.world_size().is_multiple_of(ranks) {
            let world_size = communicator.world_size();
            return Err(Error::Options(format!("shards of {ranks} ranks do not divide {world_size} ranks")));
        }
        let units = layout::units(&declared(&model), options.smallest_unit, ranks);
        let mut group = group::Forming::new(communicator, ranks)?;
        let parameters = Parameters::new(&mut group, &units, options.sharding, initial)?;
        let gradients = Gradients::new(&mut group, &units, &options)?;
        let group = group.start()?;
        let owned = |unit| gradients::owned(unit, options.sharding, group.shard(), group.shards());
        let moments = units.iter().map(|unit| Moments::zeros(owned(unit).len())).collect();
        Ok(Self {
            library,
            model,
            options,
            group,
            units,
            parameters,
            gradients,
            moments,
            step: 0,
            mirror: options.keeps_mirror().then(Mirror::default),
            history: None,
            waited: Duration::ZERO,
        })
    }

    /// Records where the time of its steps goes.
    pub(crate) fn record(&mut self, recorder: Recorder) {
        if recorder.records() {
            recorder.name_units(self.units.iter().map(Unit::name).collect());
        }
        self.group.record(recorder);
    }

    /// What it records with.
    pub(crate) fn recorder(&self) -> &Recorder {
        self.group.recorder()
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.group.world_size()
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Bytes of model state on this rank: parameters, gradients and moments that live from step to step, and the buffers
    /// in which units are whole.
    pub fn state_bytes(&self) -> usize {
        let moments: usize = self.moments.iter().map(|moments| moments.first.len() * 2).sum();
        size_of::<f32>() * moments
            + self.parameters.bytes(&self.units)
            + self.gradients.bytes()
            + self.mirror.as_ref().map_or(0, Mirror::bytes)
    }

    /// Computes the gradients of a batch. A step may take several; `is_last` says that [`step`](Self::step) follows.
    /// Every rank must pass as many batches.
    pub fn accumulate(
        &mut self,
        input: Input<'_>,
        labels: &[u32],
        is_last: bool,
    ) -> Result<BatchOutcome, Error> {
        compute::accumulate(self, input, labels, is_last)
    }

    /// Loss and rightly predicted labels of a batch, without gradients. A collective call where parameters are sharded.
    pub fn evaluate(&mut self, input: Input<'_>, labels: &[u32]) -> Result<BatchOutcome, Error> {
        compute::evaluate(self, input, labels)
    }

    /// Takes a step along the gradients of all ranks, and averages `values` over the ranks on the way.
    pub fn step<const N: usize>(
        &mut self,
        learning_rate: f32,
        values: [f32; N],
    ) -> Result<StepOutcome<N>, Error> {
        let averages = self.group.average(values);
        self.gradients.finish(&mut self.group, &self.units)?;
        let averages = self.group.wait(averages)?;
        if let Some(mirror) = &mut self.mirror {
            mirror.settle()?;
        }
        let gradient_norm = self.options.clip_norm.map(|_| self.gradient_norm()).transpose()?;
        let clip = match (self.options.clip_norm, gradient_norm) {
            (Some(limit), Some(norm)) if norm > limit => limit / norm,
            _ => 1.0,
        };
        self.step += 1;
        let rate =
            StepRate { step: self.step, learning_rate, scale: self.gradients.scale() * clip, decays: true };
        let _optimizer = self.recorder().span(Track::Compute, "optimizer step", Detail::None);
        for index in 0..self.units.len() {
            self.step_unit(index, rate)?;
        }
        self.gradients.clear();
        Ok(StepOutcome { averages, gradient_norm })
    }

    fn owned(&self, index: usize) -> Range<usize> {
        gradients::owned(&self.units[index], self.options.sharding, self.group.shard(), self.group.shards())
    }

    fn recomputes(&self) -> bool {
        self.options.recompute || self.options.sharding == Sharding::Parameters
    }

    fn step_unit(&mut self, index: usize, rate: StepRate) -> Result<(), Error> {
        let owned = self.owned(index);
        let gradients = self.gradients.reduced(index);
        let values = self.parameters.owned(&mut self.group, index, &owned)?;
        let Moments { first, second } = &mut self.moments[index];
        for (piece, decays) in self.units[index].pieces(&owned) {
            let here = piece.start - owned.start..piece.end - owned.start;
            let moments = (&mut first[here.clone()], &mut second[here.clone()]);
            let rate = StepRate { decays, ..rate };
            self.options.optimizer.step(&mut values[here.clone()], &gradients[here], moments, rate);
        }
        self.parameters.publish(&self.group, index);
        Ok(())
    }

    /// The norm over all parameters: each rank adds up its part of every unit, also where it holds all of them, so that
    /// the sum is the same for every way of sharding.
    fn gradient_norm(&mut self) -> Result<f32, Error> {
        let mut squares = 0.0_f64;
        for (index, unit) in self.units.iter().enumerate() {
            let owned = self.owned(index);
            let part = unit.part(self.group.shard(), self.group.shards());
            let part = part.start - owned.start..part.end - owned.start;
            squares += self.gradients.reduced(index)[part]
                .iter()
                .map(|value| f64::from(*value).powi(2))
                .sum::<f64>();
        }
        let total = self.group.sum_over_shards(squares)?;
        Ok((total.sqrt() * f64::from(self.gradients.scale())) as f32)
    }

    /// Adds a count over all ranks.
    pub fn sum(&mut self, count: i64) -> Result<i64, Error> {
        self.group.sum(count)
    }

    /// Adds a value over all ranks.
    pub fn sum_values(&mut self, value: f64) -> Result<f64, Error> {
        self.group.sum(value)
    }

    /// What every rank passes, in rank order.
    pub fn gather(&mut self, value: u64) -> Result<Vec<u64>, Error> {
        self.group.gather(value)
    }

    /// The bytes that every rank passes, in rank order.
    pub fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.group.gather_bytes(bytes)
    }

    /// Shows every parameter with its values, whole, in the order of the model. A collective call where parameters are
    /// sharded.
    pub fn visit_parameters(&mut self, mut visit: impl FnMut(&Parameter, &[f32])) -> Result<(), Error> {
        for (index, unit) in self.units.iter().enumerate() {
            self.parameters.with_whole(&mut self.group, &self.units, index, |values| {
                for (parameter, place) in &unit.parameters {
                    visit(parameter, &values[place.clone()]);
                }
            })?;
        }
        Ok(())
    }
}

/// The parameters that each block declares.
fn declared<L: Library>(model: &Model<L>) -> Vec<Vec<Parameter>> {
    model.blocks().iter().map(|block| block.parameters()).collect()
}

/// Room in the arena for a buffer, which may begin at a large page.
fn room(bytes: usize) -> usize {
    bytes + (4 << 20)
}
