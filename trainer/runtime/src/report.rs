//! The lines a rank prints: `name=value` pairs, which people, the CLI and metric collectors read alike.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::observe::{Observers, Trouble};

/// Writes a rank's lines, and passes on what they say to those who see it in other forms.
pub(crate) struct Report<W> {
    output: W,
    observers: Observers,
}

/// Where training stands after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) step: u64,
    pub(crate) steps_total: u64,
    pub(crate) epoch: u32,
    pub(crate) loss: f32,
    pub(crate) train_accuracy: f32,
    pub(crate) samples_per_second: f64,
    pub(crate) learning_rate: f32,
    /// Where it is known, since gradients are clipped by it.
    pub(crate) gradient_norm: Option<f32>,
    /// Time waited for other ranks so far.
    pub(crate) communication: Duration,
}

/// What the held-out samples gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Evaluation {
    /// Mean cross-entropy, in nats.
    pub(crate) loss: f64,
    /// Share of the labels that had the highest score.
    pub(crate) accuracy: f64,
}

impl<W: Write> Report<W> {
    pub(crate) fn new(output: W, observers: Observers) -> Self {
        Self { output, observers }
    }

    /// A step was taken, which has no line of its own.
    pub(crate) fn step(&mut self, progress: &Progress) {
        self.observers.step(progress);
    }

    /// One line of metrics.
    pub(crate) fn progress(&mut self, progress: &Progress) -> Result<(), Error> {
        let drawn = self.observers.progress(progress);
        self.drawn(drawn)?;
        if let Some(trouble) = self.observers.report_trouble() {
            self.line(format_args!("event=report-failed error={trouble:?}"))?;
        }
        if self.observers.replaces_lines(0) {
            return Ok(());
        }
        let Progress { step, steps_total, epoch, loss, train_accuracy, samples_per_second, .. } = progress;
        self.line(format_args!(
            "step={step} epoch={epoch} loss={loss:.4} steps_total={steps_total} train_accuracy={train_accuracy:.4} \
             samples_per_second={samples_per_second:.0}"
        ))
    }

    /// What a rank other than 0 says after an epoch.
    pub(crate) fn epoch(&mut self, rank: usize, progress: &Progress) -> Result<(), Error> {
        if self.observers.replaces_lines(rank) {
            return Ok(());
        }
        let Progress { step, epoch, loss, .. } = progress;
        self.line(format_args!("rank={rank} epoch={epoch} step={step} loss={loss:.4}"))
    }

    /// One line about the held-out samples.
    pub(crate) fn evaluation(&mut self, epoch: u32, step: u64, evaluation: &Evaluation) -> Result<(), Error> {
        let drawn = self.observers.evaluation(step, evaluation);
        self.drawn(drawn)?;
        let Evaluation { loss, accuracy } = evaluation;
        self.line(format_args!("step={step} epoch={epoch} test_loss={loss:.4} test_accuracy={accuracy:.4}"))
    }

    /// The training goes on from a checkpoint.
    pub(crate) fn resumed(&mut self, rank: usize, step: u64) -> Result<(), Error> {
        let drawn = self.observers.resumed(step);
        self.drawn(drawn)?;
        self.line(format_args!("event=resumed rank={rank} step={step}"))
    }

    /// A checkpoint cannot be used.
    pub(crate) fn damaged(&mut self, step: u64, damage: impl std::fmt::Display) -> Result<(), Error> {
        self.line(format_args!("event=checkpoint-damaged step={step} error={:?}", damage.to_string()))
    }

    /// A checkpoint is whole.
    pub(crate) fn kept(&mut self, step: u64) -> Result<(), Error> {
        self.observers.checkpoint(step);
        self.line(format_args!("event=checkpoint step={step}"))
    }

    /// Metrics are served somewhere, if they are.
    pub(crate) fn served(&mut self, rank: usize) -> Result<(), Error> {
        let Some(address) = self.observers.served() else { return Ok(()) };
        self.line(format_args!("event=metrics rank={rank} address=http://{address}/metrics"))
    }

    /// A trace was written, or could not be; the training goes on.
    pub(crate) fn profiled(&mut self, rank: usize, written: io::Result<Option<&Path>>) -> Result<(), Error> {
        match written {
            Ok(Some(path)) => self.line(format_args!("event=profile rank={rank} file={}", path.display())),
            Ok(None) => Ok(()),
            Err(error) => {
                self.line(format_args!("event=profile-failed rank={rank} error={:?}", error.to_string()))
            }
        }
    }

    /// What others see could not be written; the training goes on.
    fn drawn(&mut self, drawn: Result<(), Trouble>) -> Result<(), Error> {
        match drawn {
            Ok(()) => Ok(()),
            Err(trouble) => {
                self.line(format_args!("event=tensorboard-failed error={:?}", trouble.to_string()))
            }
        }
    }

    /// A checkpoint could not be written; the training goes on.
    pub(crate) fn not_kept(&mut self, rank: usize, error: &Error) -> Result<(), Error> {
        self.line(format_args!("event=checkpoint-failed rank={rank} error={:?}", error.to_string()))
    }

    /// A rank is lost, after so many steps.
    pub(crate) fn loss(&mut self, rank: usize, step: u64, error: &Error) -> Result<(), Error> {
        self.line(format_args!("event=loss rank={rank} step={step} error={:?}", error.to_string()))
    }

    /// This process has its place in an elastic training, which has taken so many steps.
    pub(crate) fn joined(&mut self, rank: usize, world_size: usize, step: u64) -> Result<(), Error> {
        self.line(format_args!("event=joined rank={rank} world_size={world_size} step={step}"))
    }

    /// Ranks join or leave after so many steps.
    pub(crate) fn change(&mut self, rank: usize, step: u64) -> Result<(), Error> {
        self.line(format_args!("event=change rank={rank} step={step}"))
    }

    /// The ranks have come together again, `rank` being this one's new number.
    pub(crate) fn regrouped(
        &mut self,
        rank: usize,
        world_size: usize,
        step: u64,
        took: Duration,
    ) -> Result<(), Error> {
        let took = took.as_secs_f64();
        self.line(format_args!(
            "event=regrouped rank={rank} world_size={world_size} step={step} seconds={took:.3}"
        ))
    }

    /// The last line.
    pub(crate) fn result(
        &mut self,
        steps: u64,
        evaluation: Option<&Evaluation>,
        elapsed: Duration,
        communication: Duration,
        model: Option<&Path>,
    ) -> Result<(), Error> {
        if let Some(evaluation) = evaluation {
            let drawn = self.observers.evaluation(steps, evaluation);
            self.drawn(drawn)?;
        }
        self.observers.end();
        let accuracy = evaluation.map_or_else(String::new, |Evaluation { loss, accuracy }| {
            format!(" test_accuracy={accuracy:.4} test_loss={loss:.4}")
        });
        let model = model.map_or_else(String::new, |model| format!(" model={}", model.display()));
        let (elapsed, communication) = (elapsed.as_secs_f64(), communication.as_secs_f64());
        self.line(format_args!(
            "result steps={steps}{accuracy} elapsed_seconds={elapsed:.3} \
             communication_seconds={communication:.3}{model}"
        ))
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), Error> {
        // One write a line: lines of several processes may share a pipe.
        let line = format!("{line}\n");
        let Self { output, observers } = self;
        let write = || output.write_all(line.as_bytes()).and_then(|()| output.flush());
        observers.above(write).map_err(Error::Report)
    }
}

#[cfg(test)]
impl Progress {
    /// For the tests of those who show it.
    pub(crate) fn example() -> Self {
        Self {
            step: 120,
            steps_total: 600,
            epoch: 3,
            loss: 0.213_44,
            train_accuracy: 0.9375,
            samples_per_second: 51_234.6,
            learning_rate: 0.003,
            gradient_norm: Some(0.5),
            communication: Duration::from_millis(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_pairs() {
        let mut output = Vec::new();
        let mut report = Report::new(&mut output, Observers::default());
        let progress = Progress::example();
        report.progress(&progress).unwrap();
        report.epoch(2, &progress).unwrap();
        let (elapsed, communication) = (Duration::from_millis(4100), Duration::from_millis(300));
        let model = Path::new("/model/model.safetensors");
        let evaluation = Evaluation { loss: 0.1, accuracy: 0.972 };
        report.evaluation(3, 120, &evaluation).unwrap();
        report.result(600, Some(&evaluation), elapsed, communication, Some(model)).unwrap();
        assert_eq!(
            String::from_utf8(output).unwrap(),
            "step=120 epoch=3 loss=0.2134 steps_total=600 train_accuracy=0.9375 samples_per_second=51235\n\
             rank=2 epoch=3 step=120 loss=0.2134\n\
             step=120 epoch=3 test_loss=0.1000 test_accuracy=0.9720\n\
             result steps=600 test_accuracy=0.9720 test_loss=0.1000 elapsed_seconds=4.100 communication_seconds=0.300 \
             model=/model/model.safetensors\n"
        );
    }

    /// Katib's filter where an experiment names none: a name and a value.
    const KATIB: &str = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)";

    #[test]
    fn katib_reads_the_lines_with_its_own_filter() {
        let mut output = Vec::new();
        let mut report = Report::new(&mut output, Observers::default());
        report.progress(&Progress::example()).unwrap();
        let evaluation = Evaluation { loss: 1e-9, accuracy: 0.972 };
        report.evaluation(3, 120, &evaluation).unwrap();
        report.result(600, Some(&evaluation), Duration::from_secs(4), Duration::ZERO, None).unwrap();
        let filter = regex::Regex::new(KATIB).unwrap();
        let text = String::from_utf8(output).unwrap();
        let values = |metric: &str| -> Vec<f64> {
            let pairs = filter.captures_iter(&text).filter(|pair| &pair[1] == metric);
            pairs.map(|pair| pair[2].parse().unwrap()).collect()
        };
        assert_eq!(values("loss"), [0.2134]);
        assert_eq!(values("train_accuracy"), [0.9375]);
        assert_eq!(values("test_loss"), [0.0, 0.0]);
        assert_eq!(values("test_accuracy"), [0.972, 0.972]);
    }
}
