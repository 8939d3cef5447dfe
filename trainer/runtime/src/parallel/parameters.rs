//! Parameters where each way of sharding keeps them, and whole when a unit is computed.

use std::collections::VecDeque;
use std::ops::Range;

use muster_collectives::RegisteredBuffer;

use super::group::{Forming, Group, Returned};
use super::layout::Unit;
use super::{Error, Sharding, room};

/// Buffers in which units are whole: the next is gathered while one is computed.
const BUFFERS: usize = 2;

/// Bytes of shared memory.
pub(super) fn arena_bytes(units: &[Unit], sharding: Sharding) -> usize {
    let bytes = |unit: &Unit| room(unit.padded * size_of::<f32>());
    match sharding {
        Sharding::None => 0,
        Sharding::Optimizer | Sharding::Gradients => units.iter().map(bytes).sum(),
        Sharding::Parameters => BUFFERS * units.iter().map(bytes).max().unwrap_or(0),
    }
}

/// A unit in shared memory, or on its way to be whole.
pub(super) enum Slot {
    Whole(RegisteredBuffer<f32>),
    Flying(Returned<RegisteredBuffer<f32>>),
    /// Only between two states, and after a failed gather.
    Lost,
}

/// The parameters of all units.
pub(super) enum Parameters {
    /// Every rank holds all, and changes all alike.
    Replicated(Vec<Vec<f32>>),
    /// Every rank holds all and changes its part; parts are exchanged after a step.
    Exchanged(Vec<Slot>),
    /// Every rank holds its parts; units are gathered when they are needed.
    Sharded {
        parts: Vec<Vec<f32>>,
        pool: Vec<RegisteredBuffer<f32>>,
        flying: VecDeque<(usize, Returned<RegisteredBuffer<f32>>)>,
    },
}

/// The parameters that a seed gives a unit, the same on every rank.
pub(super) fn seeded(unit: &Unit, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; unit.padded];
    for (number, (parameter, place)) in unit.parameters.iter().enumerate() {
        parameter.initialize(seed, unit.first + number, &mut values[place.clone()]);
    }
    values
}

fn lost() -> Error {
    Error::Options("parameters were lost in a failed step".into())
}

impl Parameters {
    /// Each unit begins with what `initial` gives for it, filled up.
    pub(super) fn new(
        group: &mut Forming,
        units: &[Unit],
        sharding: Sharding,
        mut initial: impl FnMut(&Unit) -> Vec<f32>,
    ) -> Result<Self, Error> {
        match sharding {
            Sharding::None => Ok(Self::Replicated(units.iter().map(initial).collect())),
            Sharding::Optimizer | Sharding::Gradients => {
                let mut slots = Vec::new();
                for unit in units {
                    let mut buffer = group.allocate(unit.padded)?;
                    buffer.copy_from_slice(&initial(unit));
                    slots.push(Slot::Whole(buffer));
                }
                Ok(Self::Exchanged(slots))
            }
            Sharding::Parameters => {
                let part = |unit: &Unit| initial(unit)[unit.part(group.shard(), group.shards())].to_vec();
                let parts = units.iter().map(part).collect();
                let longest = units.iter().map(|unit| unit.padded).max().unwrap_or(0);
                let pool = (0..BUFFERS).map(|_| group.allocate(longest)).collect::<Result<_, _>>()?;
                Ok(Self::Sharded { parts, pool, flying: VecDeque::new() })
            }
        }
    }

    /// Bytes that parameters take.
    pub(super) fn bytes(&self, units: &[Unit]) -> usize {
        let elements: usize = match self {
            Self::Replicated(_) | Self::Exchanged(_) => units.iter().map(|unit| unit.padded).sum(),
            Self::Sharded { parts, .. } => {
                let longest = units.iter().map(|unit| unit.padded).max().unwrap_or(0);
                parts.iter().map(Vec::len).sum::<usize>() + BUFFERS * longest
            }
        };
        elements * size_of::<f32>()
    }

    /// Starts to gather a unit that is needed soon, if there is a buffer for it.
    pub(super) fn prefetch(&mut self, group: &Group, units: &[Unit], index: usize) -> Result<(), Error> {
        let Self::Sharded { parts, pool, flying } = self else { return Ok(()) };
        if flying.iter().any(|(other, _)| *other == index) {
            return Ok(());
        }
        if let Some(mut buffer) = pool.pop() {
            let unit = &units[index];
            buffer.resize(unit.padded)?;
            buffer[unit.part(group.shard(), group.shards())].copy_from_slice(&parts[index]);
            flying.push_back((index, group.gather_parts(buffer)));
        }
        Ok(())
    }

    /// Lends a unit whole. A collective call where parameters are sharded; all ranks must need units in the same order.
    pub(super) fn with_whole<R>(
        &mut self,
        group: &mut Group,
        units: &[Unit],
        index: usize,
        work: impl FnOnce(&[f32]) -> R,
    ) -> Result<R, Error> {
        match self {
            Self::Replicated(values) => Ok(work(&values[index])),
            Self::Exchanged(slots) => Ok(work(whole(group, &mut slots[index])?)),
            Self::Sharded { .. } => {
                let buffer = self.gathered(group, units, index)?;
                let result = work(&buffer);
                if let Self::Sharded { pool, .. } = self {
                    pool.push(buffer);
                }
                Ok(result)
            }
        }
    }

    fn gathered(
        &mut self,
        group: &mut Group,
        units: &[Unit],
        index: usize,
    ) -> Result<RegisteredBuffer<f32>, Error> {
        // What was gathered ahead and is not wanted, at the end of a pass, gives its buffer back.
        loop {
            self.prefetch(group, units, index)?;
            let Self::Sharded { pool, flying, .. } = self else { return Err(lost()) };
            let Some((gathered, pending)) = flying.pop_front() else { return Err(lost()) };
            let buffer = group.take_back(pending)?;
            if gathered == index {
                return Ok(buffer);
            }
            pool.push(buffer);
        }
    }

    /// The owned values of a unit, to be changed.
    pub(super) fn owned(
        &mut self,
        group: &mut Group,
        index: usize,
        owned: &Range<usize>,
    ) -> Result<&mut [f32], Error> {
        match self {
            Self::Replicated(values) => Ok(&mut values[index][owned.clone()]),
            Self::Exchanged(slots) => Ok(&mut whole(group, &mut slots[index])?[owned.clone()]),
            Self::Sharded { parts, .. } => Ok(&mut parts[index]),
        }
    }

    /// Waits for everything that is on its way.
    pub(super) fn settle(&mut self, group: &mut Group) -> Result<(), Error> {
        if let Self::Exchanged(slots) = self {
            for slot in slots {
                whole(group, slot)?;
            }
        }
        Ok(())
    }

    /// What this rank holds of a unit, once it is [settled](Self::settle): all of it, or its part.
    pub(super) fn held(&self, index: usize) -> Result<&[f32], Error> {
        match self {
            Self::Replicated(values) => Ok(&values[index]),
            Self::Exchanged(slots) => match &slots[index] {
                Slot::Whole(buffer) => Ok(buffer),
                Slot::Flying(_) | Slot::Lost => Err(lost()),
            },
            Self::Sharded { parts, .. } => Ok(&parts[index]),
        }
    }

    /// The same, to be changed.
    pub(super) fn held_mut(&mut self, index: usize) -> Result<&mut [f32], Error> {
        match self {
            Self::Replicated(values) => Ok(&mut values[index]),
            Self::Exchanged(slots) => match &mut slots[index] {
                Slot::Whole(buffer) => Ok(buffer),
                Slot::Flying(_) | Slot::Lost => Err(lost()),
            },
            Self::Sharded { parts, .. } => Ok(&mut parts[index]),
        }
    }

    /// Starts to tell the others the owned values of a unit.
    pub(super) fn publish(&mut self, group: &Group, index: usize) {
        if let Self::Exchanged(slots) = self {
            slots[index] = match std::mem::replace(&mut slots[index], Slot::Lost) {
                Slot::Whole(buffer) => Slot::Flying(group.gather_parts(buffer)),
                other => other,
            };
        }
    }
}

/// The values of a unit, once they have come.
fn whole<'a>(group: &mut Group, slot: &'a mut Slot) -> Result<&'a mut RegisteredBuffer<f32>, Error> {
    *slot = match std::mem::replace(slot, Slot::Lost) {
        Slot::Flying(pending) => Slot::Whole(group.take_back(pending)?),
        other => other,
    };
    match slot {
        Slot::Whole(buffer) => Ok(buffer),
        Slot::Flying(_) | Slot::Lost => Err(lost()),
    }
}
