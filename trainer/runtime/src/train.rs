//! The training program: from the arguments to a model on disk.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::backend::CandleNetwork;
use crate::data::Dataset;
use crate::data_parallel::{DataParallel, bits, checksum};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::model_file::{self, Description};
use crate::network::Network;
use crate::optimizer::{AdamW, cosine_decay};
use crate::report::{Progress, Report};
use crate::sampler::DistributedSampler;
use crate::world::World;

/// What a finished training gave. The same on all ranks, but for the model's path, which only rank 0 knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Share of the held-out samples that were classified rightly; none without held-out samples.
    pub test_accuracy: Option<f64>,
    /// Time spent training.
    pub elapsed: Duration,
    /// Part of it spent in collectives, waiting for slower ranks included.
    pub communication: Duration,
    /// The model file, on rank 0.
    pub model: Option<PathBuf>,
}

/// Trains as the arguments and the process's environment say, and prints metrics to standard output.
///
/// Call it from the main thread before starting others: signals are blocked for the whole process.
pub fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let world = World::from_environment(|name| std::env::var(name).ok())?;
    let mut interrupt = Interrupt::block()?;
    configure_threads(arguments, &world)?;
    let result = train(arguments, &world, &mut interrupt, &mut Report::new(stdout()));
    match (result, interrupt.signal()) {
        // When a whole job is stopped, ranks that stop a step earlier look lost to the others.
        (Err(Error::Collective { .. }), Some(signal)) => Err(Error::Interrupted { signal }),
        (result, _) => result,
    }
}

/// Ranks share the machine, so each takes its part of the processors.
fn configure_threads(arguments: &Arguments, world: &World) -> Result<(), Error> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = arguments.threads.unwrap_or_else(|| (processors / world.size).max(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("compute-{i}"));
    pool.build_global()
        .map_err(|error| Error::Setup { action: "start compute threads", message: error.to_string() })
}

fn train<W: Write>(
    arguments: &Arguments,
    world: &World,
    interrupt: &mut Interrupt,
    report: &mut Report<W>,
) -> Result<Outcome, Error> {
    let mut data = Dataset::load(&arguments.data)?;
    let data_checksum = checksum(bits(&data.inputs).chain(data.labels.iter().map(|label| u64::from(*label))));
    let (training, test) = data.split(arguments.test_fraction, arguments.seed);
    if training.len() < world.size {
        return Err(Error::TooFewSamples { samples: training.len(), world_size: world.size });
    }
    let scaling = data.scaling(&training);
    data.scale(&scaling);
    let network = Network::new(data.width, &arguments.hidden, data.classes.len());
    if let (0, Some(folder)) = (world.rank, &arguments.output) {
        model_file::prepare(folder)?;
    }

    let mut ranks = DataParallel::join(world, arguments, network.parameter_count())?;
    if let Some(rank) = ranks.first_that_differs(data_checksum)? {
        return Err(Error::DataDiffers { rank, path: arguments.data.clone() });
    }
    if let Some(rank) = ranks.first_that_differs(settings_checksum(arguments))? {
        return Err(Error::SettingsDiffer { rank });
    }
    let mut parameters = network.initial_parameters(arguments.seed);
    ranks.broadcast(&mut parameters)?;

    let mut backend = CandleNetwork::new(&network).map_err(|error| error.on(world.rank))?;
    backend.load(&parameters).map_err(|error| error.on(world.rank))?;
    let communicated_before = ranks.communication_time();
    let began = Instant::now();
    let mut trainer = Trainer {
        arguments,
        optimizer: AdamW::new(parameters.len(), arguments.weight_decay),
        gradients: vec![0.0; parameters.len()],
        parameters,
        backend,
        ranks,
        step: 0,
    };
    trainer.epochs(&data, &training, interrupt, report)?;
    let elapsed = began.elapsed();
    let communication = trainer.ranks.communication_time().saturating_sub(communicated_before);
    trainer.finish(&data, &test, &network, &scaling, (elapsed, communication), report)
}

/// One rank's state while it trains.
struct Trainer<'a> {
    arguments: &'a Arguments,
    parameters: Vec<f32>,
    gradients: Vec<f32>,
    optimizer: AdamW,
    backend: CandleNetwork,
    ranks: DataParallel,
    step: u64,
}

impl Trainer<'_> {
    fn epochs<W: Write>(
        &mut self,
        data: &Dataset,
        training: &[usize],
        interrupt: &mut Interrupt,
        report: &mut Report<W>,
    ) -> Result<(), Error> {
        let Arguments { batch_size, epochs, learning_rate, seed, log_every, .. } = *self.arguments;
        let (rank, world_size) = (self.ranks.rank(), self.ranks.world_size());
        let sampler = DistributedSampler { samples: training.len(), rank, world_size, seed };
        let steps_total = sampler.samples_per_rank().div_ceil(batch_size) as u64 * u64::from(epochs);
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        let began = Instant::now();
        let mut samples_seen = 0;
        for epoch in 1..=epochs {
            let order: Vec<usize> = sampler.epoch(epoch).into_iter().map(|sample| training[sample]).collect();
            let mut batches = order.chunks(batch_size).peekable();
            while let Some(batch) = batches.next() {
                data.gather(batch, &mut inputs, &mut labels);
                let outcome = self
                    .backend
                    .gradients(&inputs, &labels, &mut self.gradients)
                    .map_err(|error| error.on(rank))?;
                let stop = interrupt.signal();
                let outcome =
                    self.ranks.average(&mut self.gradients, outcome, batch.len(), stop.is_some())?;
                if let Some(signal) = stop {
                    return Err(Error::Interrupted { signal });
                }
                if outcome.stop {
                    return Err(Error::StoppedWithOthers { rank });
                }
                if !outcome.loss.is_finite() {
                    return Err(Error::LossNotFinite { step: self.step + 1, loss: outcome.loss });
                }
                let learning_rate = cosine_decay(learning_rate, self.step, steps_total);
                self.optimizer.step(&mut self.parameters, &self.gradients, learning_rate);
                self.backend.load(&self.parameters).map_err(|error| error.on(rank))?;
                self.step += 1;
                samples_seen += batch.len() * world_size;

                let progress = Progress {
                    step: self.step,
                    steps_total,
                    epoch,
                    loss: outcome.loss,
                    train_accuracy: outcome.accuracy,
                    samples_per_second: samples_seen as f64 / began.elapsed().as_secs_f64().max(1e-9),
                };
                let last = self.step == steps_total;
                if rank == 0 && (self.step.is_multiple_of(log_every) || self.step == 1 || last) {
                    report.progress(&progress)?;
                } else if rank != 0 && batches.peek().is_none() {
                    report.epoch(rank, &progress)?;
                }
            }
        }
        Ok(())
    }

    fn finish<W: Write>(
        mut self,
        data: &Dataset,
        test: &[usize],
        network: &Network,
        scaling: &crate::data::Scaling,
        (elapsed, communication): (Duration, Duration),
        report: &mut Report<W>,
    ) -> Result<Outcome, Error> {
        let rank = self.ranks.rank();
        if let Some(rank) = self.ranks.first_that_differs(checksum(bits(&self.parameters)))? {
            return Err(Error::ParametersDiffer { rank });
        }
        let own: Vec<usize> = test.iter().skip(rank).step_by(self.ranks.world_size()).copied().collect();
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        let mut correct = 0;
        for batch in own.chunks(1024) {
            data.gather(batch, &mut inputs, &mut labels);
            correct += self.backend.evaluate(&inputs, &labels).map_err(|error| error.on(rank))?;
        }
        let correct = self.ranks.sum(correct)?;
        let test_accuracy = (!test.is_empty()).then(|| correct as f64 / test.len() as f64);
        let mut model = None;
        if rank == 0 {
            if let Some(folder) = &self.arguments.output {
                let description =
                    Description { network, scaling, classes: &data.classes, steps: self.step, test_accuracy };
                model = Some(model_file::write(folder, &self.parameters, &description)?);
            }
            report.result(self.step, test_accuracy, elapsed, communication, model.as_deref())?;
        }
        Ok(Outcome { steps: self.step, test_accuracy, elapsed, communication, model })
    }
}

/// What must be the same on all ranks for training to be the same.
fn settings_checksum(arguments: &Arguments) -> u64 {
    let Arguments { hidden, epochs, batch_size, learning_rate, weight_decay, seed, test_fraction, .. } =
        arguments;
    let hidden = hidden.iter().map(|size| *size as u64);
    let numbers = [
        u64::from(*epochs),
        *batch_size as u64,
        u64::from(learning_rate.to_bits()),
        u64::from(weight_decay.to_bits()),
        *seed,
        test_fraction.to_bits(),
    ];
    checksum(numbers.into_iter().chain(hidden))
}
