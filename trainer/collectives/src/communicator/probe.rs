//! Which algorithm is faster at which size on this machine, found out while a group forms. The algorithms give the same
//! bits, so that nothing but time depends on the choice.

use std::time::{Duration, Instant};

use super::Communicator;
use crate::arena::RegisteredBuffer;
use crate::element::Reduction;
use crate::error::Error;
use crate::shared_memory::Limits;

/// No further size is tried after this time.
const LONGEST: Duration = Duration::from_millis(5);

/// Times that each algorithm is tried at a size; the best counts, since everything that disturbs makes it slower.
const REPETITIONS: usize = 5;

/// The usual choice is given up only for one that takes at most this part of its time.
const CLEARLY: f64 = 0.9;

/// Sizes in bytes at which an algorithm in one step is compared with one in two.
const REGISTERED_SIZES: [usize; 4] = [256, 1 << 10, 4 << 10, 16 << 10];
const STAGED_SIZES: [usize; 5] = [32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10];

/// What was measured at a size.
#[derive(Clone, Copy, Debug)]
struct Comparison {
    bytes: usize,
    /// Seconds in one step, in which every rank computes all of the result.
    whole: f64,
    /// Seconds in two, between which each rank computes a share.
    shared: f64,
}

impl Communicator {
    /// Measures up to which size ranks compute results whole, and does so from now on; the same on every rank.
    pub(super) fn probe(&mut self) -> Result<(), Error> {
        if self.world_size() == 1 || self.transport.host_count() > 1 {
            // Between hosts data goes in shares at every size.
            return Ok(());
        }
        let began = Instant::now();
        let usual = self.transport.limits();
        let result = self.measured(usual, began);
        self.transport.set_limits(*result.as_ref().unwrap_or(&usual));
        let limits = result?;
        tracing::debug!(?usual, measured = ?limits, took = ?began.elapsed(), "chose algorithms");
        Ok(())
    }

    fn measured(&mut self, usual: Limits, began: Instant) -> Result<Limits, Error> {
        let mut data = vec![0_f32; STAGED_SIZES[STAGED_SIZES.len() - 1] / size_of::<f32>()];
        let mut limits = usual;
        limits.staged = self.limit(usual.staged, &STAGED_SIZES, began, |group, bytes| {
            group.all_reduce_staged(&mut data[..bytes / size_of::<f32>()], Reduction::Sum)
        })?;
        // Ranks may have arenas of different sizes, and some of them no room.
        let buffers = REGISTERED_SIZES.map(|bytes| self.allocate::<f32>(bytes / size_of::<f32>()).ok());
        let mut have_room = [u8::from(buffers.iter().all(Option::is_some))];
        self.all_reduce_staged(&mut have_room, Reduction::Minimum)?;
        if have_room == [1] {
            let mut buffers: Vec<RegisteredBuffer<f32>> = buffers.into_iter().flatten().collect();
            limits.registered = self.limit(usual.registered, &REGISTERED_SIZES, began, |group, bytes| {
                let buffer = buffers.iter_mut().find(|buffer| size_of_val(&***buffer) == bytes);
                buffer.map_or(Ok(()), |buffer| group.all_reduce(buffer, Reduction::Sum))
            })?;
        }
        Ok(limits)
    }

    fn limit(
        &mut self,
        usual: usize,
        sizes: &[usize],
        began: Instant,
        mut reduce: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let mut comparisons = Vec::new();
        for bytes in sizes {
            // The times of both, and how long all of it has taken.
            let mut seconds = [0.0; 2 * REPETITIONS + 1];
            for (place, time) in seconds[..2 * REPETITIONS].iter_mut().enumerate() {
                self.transport.set_limits(if place % 2 == 0 { Limits::WHOLE } else { Limits::SHARED });
                self.barrier()?;
                let start = Instant::now();
                reduce(self, *bytes)?;
                *time = start.elapsed().as_secs_f64();
            }
            seconds[2 * REPETITIONS] = began.elapsed().as_secs_f64();
            // From here on all ranks know the same and decide alike.
            self.all_reduce_staged(&mut seconds, Reduction::Maximum)?;
            let best = |first: usize| {
                seconds[first..2 * REPETITIONS].iter().step_by(2).copied().fold(f64::INFINITY, f64::min)
            };
            comparisons.push(Comparison { bytes: *bytes, whole: best(0), shared: best(1) });
            if seconds[2 * REPETITIONS] > LONGEST.as_secs_f64() {
                break;
            }
        }
        Ok(crossing(usual, &comparisons))
    }
}

/// The size up to which results are computed whole, by comparisons at ascending sizes.
fn crossing(usual: usize, comparisons: &[Comparison]) -> usize {
    let mut limit = comparisons.first().map_or(usual, |comparison| usual.min(comparison.bytes / 2));
    for Comparison { bytes, whole, shared } in comparisons.iter().copied() {
        let is_usual = bytes <= usual;
        if is_usual && shared < CLEARLY * whole || !is_usual && whole >= CLEARLY * shared {
            return if is_usual { limit } else { limit.max(usual) };
        }
        limit = bytes;
    }
    limit.max(usual)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compared(times: &[(f64, f64)]) -> Vec<Comparison> {
        let sizes = STAGED_SIZES.iter().zip(times);
        sizes
            .map(|(bytes, (whole, shared))| Comparison { bytes: *bytes, whole: *whole, shared: *shared })
            .collect()
    }

    #[test]
    fn the_usual_limit_moves_only_for_a_clear_gain() {
        let usual = 128 << 10;
        let limit = |times: &[(f64, f64)]| crossing(usual, &compared(times)) >> 10;
        assert_eq!(limit(&[]), 128);
        assert_eq!(limit(&[(1.0, 1.0); 5]), 128, "neither is faster");
        assert_eq!(limit(&[(1.0, 0.95); 5]), 128, "the difference may be chance");
        assert_eq!(limit(&[(1.0, 2.0); 5]), 512, "whole is faster at all sizes");
        assert_eq!(limit(&[(2.0, 1.0); 5]), 16, "shared is faster at all sizes");
        assert_eq!(limit(&[(1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (2.0, 1.0)]), 256);
        assert_eq!(limit(&[(1.0, 2.0), (2.0, 1.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0)]), 32);
        assert_eq!(limit(&[(1.0, 2.0)]), 128, "there was no time for more");
    }

    proptest! {
        #[test]
        fn a_limit_is_the_usual_one_or_was_measured(
            times in prop::collection::vec((0.1..9.0_f64, 0.1..9.0_f64), 0..5), usual in 0..1_000_000_usize
        ) {
            let limit = crossing(usual, &compared(&times));
            prop_assert!(limit == usual || STAGED_SIZES.contains(&limit) || limit == STAGED_SIZES[0] / 2);
        }
    }
}
