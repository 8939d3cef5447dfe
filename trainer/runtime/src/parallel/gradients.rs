//! Gradients on their way: from the tensor library into shared memory, reduced there in the background, and kept.

use std::collections::VecDeque;
use std::ops::Range;

use muster_collectives::{RegisteredBuffer, bf16};

use super::group::{Forming, Group, Returned};
use super::layout::Unit;
use super::{Error, GradientType, Options, Sharding, room};

/// Buffers in which gradients travel: one is filled while another is reduced.
const BUFFERS: usize = 2;

/// The elements of a unit whose moments and steps are this rank's, and whose gradients it keeps.
pub(super) fn owned(unit: &Unit, sharding: Sharding, shard: usize, shards: usize) -> Range<usize> {
    match sharding {
        Sharding::None => 0..unit.padded,
        _ => unit.part(shard, shards),
    }
}

/// Bytes of shared memory.
pub(super) fn arena_bytes(units: &[Unit], options: &Options) -> usize {
    let size = if options.gradient_type == GradientType::F32 { 4 } else { 2 };
    BUFFERS * room(longest(units) * size)
}

fn longest(units: &[Unit]) -> usize {
    units.iter().map(|unit| unit.padded).max().unwrap_or(0)
}

/// A buffer in which gradients travel.
enum Wire {
    F32(RegisteredBuffer<f32>),
    Bf16(RegisteredBuffer<bf16>),
}

/// A buffer that is under way.
enum Flying {
    F32(Returned<RegisteredBuffer<f32>>),
    Bf16(Returned<RegisteredBuffer<bf16>>),
}

impl Wire {
    fn resize(&mut self, count: usize) -> Result<(), Error> {
        match self {
            Self::F32(buffer) => buffer.resize(count)?,
            Self::Bf16(buffer) => buffer.resize(count)?,
        }
        Ok(())
    }

    fn write(&mut self, place: Range<usize>, values: &[f32]) {
        match self {
            Self::F32(buffer) => buffer[place].copy_from_slice(values),
            Self::Bf16(buffer) => {
                let places = buffer[place].iter_mut().zip(values);
                places.for_each(|(place, value)| *place = bf16::from_f32(*value));
            }
        }
    }

    fn clear(&mut self, place: Range<usize>) {
        match self {
            Self::F32(buffer) => buffer[place].fill(0.0),
            Self::Bf16(buffer) => buffer[place].fill(bf16::ZERO),
        }
    }

    /// Puts what came back into `target`, or adds it.
    fn read(&self, place: Range<usize>, target: &mut [f32], adds: bool) {
        match (self, adds) {
            (Self::F32(buffer), false) => target.copy_from_slice(&buffer[place]),
            (Self::F32(buffer), true) => {
                target.iter_mut().zip(&buffer[place]).for_each(|(target, value)| *target += value);
            }
            (Self::Bf16(buffer), adds) => {
                let values = target.iter_mut().zip(&buffer[place]);
                values.for_each(|(target, value)| {
                    *target = value.to_f32() + if adds { *target } else { 0.0 };
                });
            }
        }
    }

    fn send(self, group: &Group, scatter: bool) -> Flying {
        match self {
            Self::F32(buffer) => Flying::F32(group.reduce(buffer, scatter)),
            Self::Bf16(buffer) => Flying::Bf16(group.reduce(buffer, scatter)),
        }
    }
}

/// The gradients of a step.
pub(super) struct Gradients {
    sharding: Sharding,
    pool: Vec<Wire>,
    flying: VecDeque<(usize, Flying)>,
    /// Sums of this rank's batches while more are to come, where they stay whole; empty otherwise.
    local: Vec<Vec<f32>>,
    /// What has been reduced of each unit, the owned elements.
    reduced: Vec<Vec<f32>>,
    /// Units of which nothing has been reduced in this step: what is kept of them is of the last one.
    is_old: Vec<bool>,
    batches: usize,
}

impl Gradients {
    pub(super) fn new(group: &mut Forming, units: &[Unit], options: &Options) -> Result<Self, Error> {
        let longest = longest(units);
        let wire = |group: &mut Forming| -> Result<Wire, Error> {
            Ok(match options.gradient_type {
                GradientType::F32 => Wire::F32(group.allocate(longest)?),
                GradientType::Bf16 => Wire::Bf16(group.allocate(longest)?),
            })
        };
        let sharding = options.sharding;
        let kept = |unit: &Unit| vec![0.0; owned(unit, sharding, group.shard(), group.shards()).len()];
        let reduced = units.iter().map(kept).collect();
        let pool = (0..BUFFERS).map(|_| wire(group)).collect::<Result<_, _>>()?;
        Ok(Self {
            sharding,
            pool,
            flying: VecDeque::new(),
            local: vec![Vec::new(); units.len()],
            reduced,
            is_old: vec![true; units.len()],
            batches: 0,
        })
    }

    /// Bytes that gradients take.
    pub(super) fn bytes(&self) -> usize {
        let kept = self.local.iter().chain(&self.reduced).map(Vec::len).sum::<usize>() * size_of::<f32>();
        let wires = self.pool.iter().map(|wire| match wire {
            Wire::F32(buffer) => buffer.capacity() * size_of::<f32>(),
            Wire::Bf16(buffer) => buffer.capacity() * size_of::<bf16>(),
        });
        kept + wires.sum::<usize>()
    }

    /// A new batch begins.
    pub(super) fn begin_batch(&mut self) {
        self.batches += 1;
    }

    /// Takes over the gradients of a unit for a batch, which `read` copies parameter by parameter, and starts to reduce
    /// them as soon as nothing is to be added on this rank.
    pub(super) fn hand_over(
        &mut self,
        group: &mut Group,
        units: &[Unit],
        index: usize,
        is_last: bool,
        mut read: impl FnMut(usize, &mut [f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let unit = &units[index];
        let stays_whole = self.sharding < Sharding::Gradients;
        let mut scratch = Vec::new();
        if stays_whole && !(is_last && self.batches == 1) {
            let local = &mut self.local[index];
            local.resize(unit.padded, 0.0);
            for (number, (_, place)) in unit.parameters.iter().enumerate() {
                scratch.resize(place.len(), 0.0);
                read(number, &mut scratch)?;
                local[place.clone()].iter_mut().zip(&scratch).for_each(|(sum, value)| *sum += value);
            }
            if !is_last {
                return Ok(());
            }
        }
        let mut wire = self.take_wire(group, units)?;
        wire.resize(unit.padded)?;
        let local = &mut self.local[index];
        if local.is_empty() {
            for (number, (_, place)) in unit.parameters.iter().enumerate() {
                match &mut wire {
                    Wire::F32(buffer) => read(number, &mut buffer[place.clone()])?,
                    Wire::Bf16(_) => {
                        scratch.resize(place.len(), 0.0);
                        read(number, &mut scratch)?;
                        wire.write(place.clone(), &scratch);
                    }
                }
            }
            wire.clear(unit.count..unit.padded);
        } else {
            wire.write(0..unit.padded, local);
            local.clear();
        }
        self.flying.push_back((index, wire.send(group, self.sharding != Sharding::None)));
        Ok(())
    }

    fn take_wire(&mut self, group: &mut Group, units: &[Unit]) -> Result<Wire, Error> {
        if self.pool.is_empty() {
            self.land(group, units)?;
        }
        self.pool
            .pop()
            .ok_or_else(|| Error::Options("a buffer of gradients was lost in a failed step".into()))
    }

    /// Waits for the oldest buffer that is under way.
    fn land(&mut self, group: &mut Group, units: &[Unit]) -> Result<(), Error> {
        let Some((index, flying)) = self.flying.pop_front() else { return Ok(()) };
        let wire = match flying {
            Flying::F32(pending) => Wire::F32(group.take_back(pending)?),
            Flying::Bf16(pending) => Wire::Bf16(group.take_back(pending)?),
        };
        let place = owned(&units[index], self.sharding, group.shard(), group.shards());
        let adds = !std::mem::replace(&mut self.is_old[index], false);
        wire.read(place, &mut self.reduced[index], adds);
        self.pool.push(wire);
        Ok(())
    }

    /// Waits for everything that is under way.
    pub(super) fn finish(&mut self, group: &mut Group, units: &[Unit]) -> Result<(), Error> {
        while !self.flying.is_empty() {
            self.land(group, units)?;
        }
        Ok(())
    }

    /// The owned gradients of a unit, summed over the batches of the step and averaged over the ranks.
    pub(super) fn reduced(&self, index: usize) -> &[f32] {
        &self.reduced[index]
    }

    /// What makes a mean of the batches out of their sum.
    pub(super) fn scale(&self) -> f32 {
        1.0 / self.batches.max(1) as f32
    }

    /// Forgets the gradients of the step.
    pub(super) fn clear(&mut self) {
        self.is_old.fill(true);
        self.batches = 0;
    }
}
