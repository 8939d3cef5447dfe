//! The training state of a rank, to be saved and restored by any number of ranks.

use std::ops::Range;

use super::{Engine, Error, Sharding};
use crate::model::Parameter;
use crate::optimizer::Moments;
use crate::tensor::Library;

/// What is kept of every parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Its values.
    Value,
    /// The optimizer's first moment.
    FirstMoment,
    /// The optimizer's second moment.
    SecondMoment,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Value, Self::FirstMoment, Self::SecondMoment];

    /// The name of a parameter's quantity in a checkpoint: values have the name of the parameter.
    pub fn name(self, parameter: &str) -> String {
        match self {
            Self::Value => parameter.to_owned(),
            Self::FirstMoment => format!("optimizer.first_moment.{parameter}"),
            Self::SecondMoment => format!("optimizer.second_moment.{parameter}"),
        }
    }
}

/// Consecutive elements of a parameter's quantity.
#[derive(Debug)]
pub struct Piece<'a> {
    /// The parameter.
    pub parameter: &'a Parameter,
    /// Which quantity of it.
    pub quantity: Quantity,
    /// The elements, counted in the parameter.
    pub range: Range<usize>,
    /// Their values.
    pub values: &'a [f32],
}

impl<L: Library> Engine<L> {
    /// What this rank saves: of every quantity each element is one rank's, also where several hold it. Where groups of
    /// ranks hold copies, the first saves.
    pub fn pieces(&mut self) -> Result<Vec<Piece<'_>>, Error> {
        let Self { group, units, parameters, moments, options, .. } = self;
        parameters.settle(group)?;
        let mut pieces = Vec::new();
        if group.rank() >= group.shards() {
            return Ok(pieces);
        }
        for (index, unit) in units.iter().enumerate() {
            let part = unit.part(group.shard(), group.shards());
            // What is held begins here: everything, or the part alone.
            let moments_begin = if options.sharding == Sharding::None { 0 } else { part.start };
            let values_begin = if options.sharding == Sharding::Parameters { part.start } else { 0 };
            let values = parameters.held(index)?;
            let Moments { first, second } = &moments[index];
            let held = [(values, values_begin), (first, moments_begin), (second, moments_begin)];
            for (parameter, place) in &unit.parameters {
                let own = place.start.max(part.start)..place.end.min(part.end);
                if own.is_empty() {
                    continue;
                }
                for (quantity, (held, begin)) in Quantity::ALL.into_iter().zip(held) {
                    pieces.push(Piece {
                        parameter,
                        quantity,
                        range: own.start - place.start..own.end - place.start,
                        values: &held[own.start - begin..own.end - begin],
                    });
                }
            }
        }
        Ok(pieces)
    }

    /// Takes over a state after `step` steps: `fill` writes elements of a parameter's quantity, and `failed` makes an error
    /// of the engine one of the caller's. Every rank must do so.
    pub fn restore<E>(
        &mut self,
        step: u64,
        failed: impl Fn(Error) -> E,
        mut fill: impl FnMut(&Parameter, Quantity, Range<usize>, &mut [f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { group, units, parameters, moments, options, .. } = self;
        parameters.settle(group).map_err(&failed)?;
        for (index, unit) in units.iter().enumerate() {
            let part = unit.part(group.shard(), group.shards());
            let (all, own) = (0..unit.count, part.start..part.end.min(unit.count));
            let moments_held = if options.sharding == Sharding::None { &all } else { &own };
            let values_held = if options.sharding == Sharding::Parameters { &own } else { &all };
            let Moments { first, second } = &mut moments[index];
            let values = parameters.held_mut(index).map_err(&failed)?;
            let targets =
                [(values, values_held), (&mut first[..], moments_held), (&mut second[..], moments_held)];
            for (quantity, (target, held)) in Quantity::ALL.into_iter().zip(targets) {
                for (parameter, place) in &unit.parameters {
                    let wanted = place.start.max(held.start)..place.end.min(held.end);
                    if wanted.is_empty() {
                        continue;
                    }
                    let within = wanted.start - place.start..wanted.end - place.start;
                    fill(
                        parameter,
                        quantity,
                        within,
                        &mut target[wanted.start - held.start..wanted.end - held.start],
                    )?;
                }
            }
        }
        self.step = step;
        Ok(())
    }
}
