//! The steps of a training, and what the held-out samples say of them.

use std::io::Write;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::Agreement;
use super::checkpoints::Keeper;
use crate::arguments::{Arguments, Learning};
use crate::attendance::Attendance;
use crate::data::{Batch, Dataset};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::observe::{Detail, Track};
use crate::parallel::{BatchOutcome, Engine};
use crate::report::{Evaluation, Progress, Report};
use crate::sampler::{Cursor, Dealing, DistributedSampler};
use crate::schedule::Schedule;
use crate::shape::Described;
use crate::tensor::Library;
use crate::world::World;

/// One rank's state while it trains.
pub(super) struct Trainer<'a, L: Library> {
    pub(super) arguments: &'a Arguments,
    pub(super) world: World,
    pub(super) attendance: Option<Attendance>,
    pub(super) agreement: Agreement,
    pub(super) arena_bytes: usize,
    pub(super) described: Described,
    pub(super) engine: Engine<L>,
    pub(super) keeper: Option<Keeper>,
    pub(super) data: Dataset,
    pub(super) sampler: DistributedSampler,
    /// When this rank set out to come together with others, if they have not agreed yet.
    pub(super) regrouped: Option<Instant>,
    /// What has been learned from, by the steps that the engine has taken.
    pub(super) cursor: Cursor,
    /// The samples to learn from.
    pub(super) training: Vec<usize>,
    /// The held-out samples.
    pub(super) test: Vec<usize>,
    pub(super) batch: Batch,
}

/// How the steps ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All have been taken.
    Trained,
    /// Ranks join or leave.
    Change,
}

impl<L: Library> Trainer<'_, L> {
    /// What all ranks of a new group do: they take the state of those that are furthest, and set out. If nobody has taken a
    /// step, they begin where the newest checkpoint ends.
    pub(super) fn begin<W: Write>(&mut self, report: &mut Report<W>) -> Result<(), Error> {
        let mut words = self.cursor.to_words();
        self.engine.agree(&mut words).map_err(Error::of_rank(self.engine.rank()))?;
        self.cursor = Cursor::from_words(words);
        let (rank, world_size, steps) = (self.engine.rank(), self.engine.world_size(), self.engine.steps());
        if let Some(began) = self.regrouped.take() {
            report.regrouped(rank, world_size, steps, began.elapsed())?;
        } else if self.attendance.is_some() {
            report.joined(rank, world_size, steps)?;
        }
        if steps == 0 {
            self.resume(report)?;
        }
        self.mirror()
    }

    /// Copies what this rank alone has to another one.
    fn mirror(&mut self) -> Result<(), Error> {
        self.engine.mirror(self.cursor.to_words()).map_err(Error::of_rank(self.engine.rank()))
    }

    /// Begins where the newest checkpoint ends.
    fn resume<W: Write>(&mut self, report: &mut Report<W>) -> Result<(), Error> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        if let Some(cursor) = keeper.resume(&mut self.engine, report)? {
            self.cursor = cursor;
            report.resumed(self.engine.rank(), self.engine.steps())?;
        }
        Ok(())
    }

    fn dealing(&self) -> Dealing {
        let Learning { batch_size, accumulate, .. } = self.arguments.learning;
        let world_size = self.engine.world_size();
        Dealing { world_size, per_rank: batch_size * accumulate, batches: accumulate }
    }

    /// Trains from the cursor to the end, or until ranks come and go.
    pub(super) fn epochs<W: Write>(
        &mut self,
        interrupt: &mut Interrupt,
        report: &mut Report<W>,
    ) -> Result<End, Error> {
        let learning = &self.arguments.learning;
        let (rank, dealing) = (self.engine.rank(), self.dealing());
        let steps_total =
            self.engine.steps() + self.sampler.steps_left(self.cursor, dealing, learning.epochs);
        let steps_total = learning.max_steps.map_or(steps_total, |most| most.min(steps_total));
        let schedule = Schedule {
            peak: learning.learning_rate,
            warmup: learning.warmup,
            steps: steps_total,
            decay: learning.decay,
        };
        let (began, mut samples_seen) = (Instant::now(), 0);
        let mut best = Best::default();
        while self.engine.steps() < steps_total {
            let epoch = self.cursor.epoch;
            if let Some((samples, next)) = self.sampler.take(self.cursor, dealing, rank) {
                report.profiled(rank, self.engine.recorder().begin_step())?;
                let learning_rate = schedule.rate(self.engine.steps());
                let outcome = self.step(&samples, learning_rate, interrupt)?;
                samples_seen += next.taken - self.cursor.taken;
                self.cursor = next;
                self.mirror()?;
                let step = self.engine.steps();
                let progress = Progress {
                    step,
                    steps_total,
                    epoch,
                    loss: outcome.loss,
                    train_accuracy: outcome.accuracy,
                    samples_per_second: samples_seen as f64 / began.elapsed().as_secs_f64().max(1e-9),
                    learning_rate,
                    gradient_norm: outcome.gradient_norm,
                    communication: self.engine.exposed_communication(),
                };
                report.step(&progress);
                let last = step == steps_total;
                let ends_epoch = last || !self.sampler.has_more(self.cursor, dealing);
                if rank == 0 && (step.is_multiple_of(self.arguments.log_every) || step == 1 || last) {
                    report.progress(&progress)?;
                } else if rank != 0 && ends_epoch {
                    report.epoch(rank, &progress)?;
                }
                if let Some(stop) = outcome.stop {
                    let leaving = self.leaving(stop)?;
                    let all_leave = leaving.iter().all(|leaves| *leaves);
                    self.keep(outcome.all_written, all_leave, report)?;
                    return if leaving[rank] { Err(stop.error(rank)) } else { Ok(End::Change) };
                }
                self.keep(outcome.all_written, false, report)?;
                // After the last step nobody needs to join any more.
                if outcome.change && !last {
                    return Ok(End::Change);
                }
                continue;
            }
            if learning.evaluate_every.is_some_and(|every| epoch.is_multiple_of(every))
                && !self.test.is_empty()
            {
                let evaluation = self.evaluate()?;
                if rank == 0 {
                    report.evaluation(epoch, self.engine.steps(), &evaluation)?;
                }
                if best.has_waited(evaluation.loss, learning.patience) {
                    // Whoever takes the training up from here has nothing left to learn.
                    self.cursor = Cursor::after(learning.epochs);
                    self.mirror()?;
                    return Ok(End::Trained);
                }
            }
            self.cursor = Cursor { epoch: epoch + 1, taken: 0 };
        }
        Ok(End::Trained)
    }

    /// Which ranks stop since some were asked to: all of them, or in an elastic training those that were asked.
    fn leaving(&mut self, stop: Stop) -> Result<Vec<bool>, Error> {
        if self.attendance.is_none() {
            return Ok(vec![true; self.engine.world_size()]);
        }
        let wants_to = matches!(stop, Stop::Here(_));
        self.engine.leaving(wants_to).map_err(Error::of_rank(self.engine.rank()))
    }

    /// Commits a checkpoint that all ranks have written, and begins the next one when it is due; at the end of the job
    /// waits until there is one.
    fn keep<W: Write>(&mut self, all_written: bool, ends: bool, report: &mut Report<W>) -> Result<(), Error> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        let mut committed = None;
        if all_written || ends {
            match keeper.commit(&mut self.engine, ends) {
                Ok(step) => committed = step,
                // Training is worth more than one checkpoint of it; the last one must be whole.
                Err(error @ Error::Checkpoint { .. }) if !ends => {
                    report.not_kept(self.engine.rank(), &error)?;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(step) = committed {
            report.kept(step)?;
        }
        keeper.begin(&mut self.engine, self.cursor, ends)?;
        if ends && let Some(step) = keeper.commit(&mut self.engine, true)? {
            report.kept(step)?;
        }
        Ok(())
    }

    /// The last checkpoint, so that a job that is started again has nothing left to do.
    pub(super) fn keep_last<W: Write>(&mut self, report: &mut Report<W>) -> Result<(), Error> {
        self.keep(true, true, report)
    }

    /// Takes one step on this rank's samples, in as many batches as are added up.
    fn step(
        &mut self,
        samples: &[usize],
        learning_rate: f32,
        interrupt: &mut Interrupt,
    ) -> Result<StepReport, Error> {
        let rank = self.engine.rank();
        let failed = Error::of_rank(rank);
        let batches = self.arguments.learning.accumulate;
        let recorder = self.engine.recorder().clone();
        let _step = recorder.span(Track::Compute, "step", Detail::Step(self.engine.steps() + 1));
        let (mut loss, mut correct) = (0.0, 0);
        for (index, samples) in samples.chunks(samples.len() / batches).enumerate() {
            let loading = recorder.span(Track::Compute, "load data", Detail::None);
            let samples: Vec<usize> = samples.iter().map(|sample| self.training[*sample]).collect();
            self.data.gather(&samples, &self.described.sample(), &mut self.batch)?;
            drop(loading);
            let outcome =
                self.engine.accumulate(self.batch.input(), self.batch.labels(), index + 1 == batches);
            let BatchOutcome { loss: own, correct: right } = outcome.map_err(failed)?;
            loss += own / batches as f32;
            correct += right;
        }
        let stop = interrupt.signal();
        let accuracy = correct as f32 / (samples.len() * self.described.labels()) as f32;
        let written = self.keeper.as_ref().is_none_or(Keeper::is_written);
        let flag = |is_set: bool| f32::from(u8::from(is_set));
        // A rank that is not ready counts, so that only zero says that all are.
        let change = self.attendance.as_ref().is_some_and(Attendance::is_change_wanted);
        let values = [loss, accuracy, flag(stop.is_some()), flag(!written), flag(change)];
        let outcome = self.engine.step(learning_rate, values).map_err(failed)?;
        let [loss, accuracy, stopped, unwritten, changed] = outcome.averages;
        if !loss.is_finite() {
            return Err(Error::LossNotFinite { step: self.engine.steps(), loss });
        }
        let stop = match stop {
            Some(signal) => Some(Stop::Here(signal)),
            None => (stopped > 0.0).then_some(Stop::Elsewhere),
        };
        let gradient_norm = outcome.gradient_norm;
        let (all_written, change) = (unwritten == 0.0, changed > 0.0);
        Ok(StepReport { loss, accuracy, gradient_norm, stop, all_written, change })
    }

    /// Loss and accuracy on the held-out samples, of which each rank takes its share.
    pub(super) fn evaluate(&mut self) -> Result<Evaluation, Error> {
        let (rank, world_size) = (self.engine.rank(), self.engine.world_size());
        let failed = Error::of_rank(rank);
        let own: Vec<usize> = self.test.iter().skip(rank).step_by(world_size).copied().collect();
        let size = self.arguments.learning.batch_size;
        // All ranks take as many batches, since sharded parameters are gathered for each.
        let batches = self.test.len().div_ceil(world_size).div_ceil(size);
        let (mut loss, mut correct) = (0.0_f64, 0);
        for batch in 0..batches {
            let samples = own.get(batch * size..).unwrap_or_default();
            let samples = &samples[..samples.len().min(size)];
            let counts = !samples.is_empty();
            let samples = if counts { samples } else { &self.test[..1] };
            self.data.gather(samples, &self.described.sample(), &mut self.batch)?;
            let outcome = self.engine.evaluate(self.batch.input(), self.batch.labels()).map_err(failed)?;
            if counts {
                loss += f64::from(outcome.loss) * samples.len() as f64;
                correct += outcome.correct;
            }
        }
        let correct = self.engine.sum(correct as i64).map_err(failed)?;
        let loss = self.engine.sum_values(loss).map_err(failed)?;
        let count = self.test.len() as f64;
        Ok(Evaluation {
            loss: loss / count,
            accuracy: correct as f64 / (count * self.described.labels() as f64),
        })
    }
}

/// What all ranks know after a step.
struct StepReport {
    loss: f32,
    accuracy: f32,
    /// Where it is known.
    gradient_norm: Option<f32>,
    /// Some rank was asked to stop.
    stop: Option<Stop>,
    /// No rank was writing a checkpoint any more.
    all_written: bool,
    /// Others want to join.
    change: bool,
}

/// Who was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Here(Signal),
    Elsewhere,
}

impl Stop {
    /// Why this rank stops.
    fn error(self, rank: usize) -> Error {
        match self {
            Self::Here(signal) => Error::Interrupted { signal },
            Self::Elsewhere => Error::StoppedWithOthers { rank },
        }
    }
}

/// The lowest loss so far, and how long ago it was.
#[derive(Debug, Default)]
struct Best {
    loss: Option<f64>,
    evaluations_since: u32,
}

impl Best {
    /// Notes an evaluation; whether there have been `patience` of them without a lower loss.
    fn has_waited(&mut self, loss: f64, patience: Option<u32>) -> bool {
        if self.loss.is_none_or(|best| loss < best) {
            *self = Self { loss: Some(loss), evaluations_since: 0 };
        } else {
            self.evaluations_since += 1;
        }
        patience.is_some_and(|patience| self.evaluations_since >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_evaluations_without_a_lower_loss() {
        let mut best = Best::default();
        let ends: Vec<bool> =
            [3.0, 2.0, 2.0, 1.0, 1.5, 1.0].map(|loss| best.has_waited(loss, Some(2))).to_vec();
        assert_eq!(ends, [false, false, false, false, false, true]);
        assert!(!best.has_waited(9.0, None));
    }
}
