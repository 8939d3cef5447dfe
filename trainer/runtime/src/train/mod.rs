//! The training program: from the arguments to a model on disk.

mod checkpoints;
mod finish;
mod recover;
mod steps;

use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use muster_collectives::{CallOff, Communicator, Error as CollectiveError};
use muster_rendezvous::MemberError;

use crate::arguments::{Arguments, ModelKind};
use crate::attendance::Attendance;
use crate::checksum::checksum;
use crate::computing::LibraryKind;
use crate::config;
use crate::data::{Batch, Dataset, Room, Table, Tokens};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::model_file;
use crate::observe::{Observers, Recorder};
use crate::parallel::{Engine, Sharding};
use crate::report::Report;
use crate::sampler::{Cursor, DistributedSampler};
use crate::shape::Described;
use crate::tensor::{Candle, Library};
use crate::world::World;
use checkpoints::Keeper;
use steps::{End, Trainer};

/// What a finished training gave. The same on all ranks, but for the model's path, which only rank 0 knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Share of the held-out labels that were predicted rightly; none without held-out samples.
    pub test_accuracy: Option<f64>,
    /// Time spent training.
    pub elapsed: Duration,
    /// Part of it spent waiting for other ranks.
    pub communication: Duration,
    /// The model file, on rank 0.
    pub model: Option<PathBuf>,
}

/// Trains as the words of a command line say; see [`Arguments`].
///
/// Words that are no command line, and `--help`, end the process as they do for every program.
pub fn run_words(words: Vec<OsString>) -> Result<Outcome, Error> {
    run(&Arguments::parse_from(config::expand(words)?))
}

/// Trains as the arguments and the process's environment say, and prints metrics to standard output.
///
/// Call it from the main thread before starting others: signals are blocked for the whole process, which may begin anew,
/// with the same words and another environment.
pub fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let world = World::from_environment(|name| std::env::var(name).ok())?;
    let computing = &arguments.computing;
    computing.check()?;
    computing.settle(&world)?;
    let mut interrupt = Interrupt::block()?;
    computing.start(&world)?;
    let recorder = Observers::recorder(&arguments.observing, &world)?;
    let mut report = Report::new(stdout(), Observers::start(&arguments.observing, &world)?);
    report.served(world.rank)?;
    let setting = Setting { arguments, world: &world, recorder: &recorder };
    let result = match computing.library {
        LibraryKind::Candle => train(Candle, setting, &mut interrupt, &mut report),
        #[cfg(feature = "libtorch")]
        LibraryKind::Libtorch => {
            computing.torch(&world).and_then(|library| train(library, setting, &mut interrupt, &mut report))
        }
        #[cfg(not(feature = "libtorch"))]
        LibraryKind::Libtorch => Err(Error::NoLibtorch),
    };
    report.profiled(world.rank, recorder.write())?;
    match (result, interrupt.signal()) {
        // When a whole job is stopped, ranks that stop a step earlier look lost to the others.
        (Err(Error::Collective { .. }), Some(signal)) => Err(Error::Interrupted { signal }),
        (result, _) => result,
    }
}

fn load(arguments: &Arguments) -> Result<Dataset, Error> {
    Ok(match arguments.model {
        ModelKind::Gpt => {
            let shape = &arguments.shape;
            Dataset::Tokens(Tokens::open(&arguments.data, shape.context, shape.vocabulary)?)
        }
        ModelKind::Mlp | ModelKind::Cnn | ModelKind::Vit => {
            let memory = arguments.data_memory.saturating_mul(1 << 20);
            let room = Room { memory, folder: std::env::temp_dir() };
            Dataset::Table(Table::load(&arguments.data, arguments.label.as_deref(), &room)?)
        }
    })
}

/// What a rank must agree on with the others before they train.
#[derive(Clone, Copy, Debug)]
struct Agreement {
    data: u64,
    settings: u64,
}

impl Agreement {
    /// Forms the group, and checks that all ranks were started for the same training.
    fn join(
        self,
        arguments: &Arguments,
        world: &World,
        arena_bytes: usize,
        interrupt: &mut Interrupt,
        grace: Duration,
        call_off: Option<CallOff>,
    ) -> Result<Communicator, Error> {
        let patience = arguments.join_deadline;
        let patience = if world.rendezvous.is_some() { patience.min(EPOCH_PATIENCE) } else { patience };
        let join = || world.join(arguments.deadline, patience, arena_bytes, call_off);
        let mut communicator = interrupt.ending_after(grace, join)?;
        let mut all = vec![0_i64; 2 * world.size];
        let own = [self.data, self.settings].map(u64::cast_signed);
        let failed = |source: CollectiveError| Error::Collective { rank: world.rank, source };
        communicator.all_gather(&own, &mut all).map_err(failed)?;
        let differs = |which: usize| (0..world.size).find(|rank| all[2 * rank + which] != all[which]);
        if world.rendezvous.is_some() && own == all[..2] {
            // Rank 0 was there before those that differ: they end, and this one goes on.
            let stranger = differs(0).or(differs(1));
            return stranger.map_or(Ok(communicator), |rank| Err(Error::Stranger { rank }));
        }
        match (differs(0), differs(1)) {
            (Some(rank), _) => Err(Error::DataDiffers { rank, path: arguments.data.clone() }),
            (None, Some(rank)) => Err(Error::SettingsDiffer { rank }),
            (None, None) => Ok(communicator),
        }
    }
}

/// How long ranks of an elastic training that have their places may take to come together; then they ask for others. If
/// one of them dies meanwhile the rendezvous says so at once, and if one falls silent sooner than this.
const EPOCH_PATIENCE: Duration = Duration::from_secs(10);

/// How long a rank waits for a place until it says so, and again.
const SAYS_SO: Duration = Duration::from_secs(10);

/// How long a rank that holds a share of the state still tries to pass it on when it is asked to stop.
const SHARE_GRACE: Duration = Duration::from_secs(3);

/// The place in the training and the group that belongs to it, once there is one whose ranks all come. A signal ends
/// the process if that takes longer than `grace`.
fn come_together(
    attendance: &mut Attendance,
    agreement: Agreement,
    arguments: &Arguments,
    arena_bytes: usize,
    interrupt: &mut Interrupt,
    grace: Duration,
) -> Result<(World, Communicator), Error> {
    let mut began = Instant::now();
    loop {
        let left = arguments.join_deadline.saturating_sub(began.elapsed());
        let world = match interrupt.ending_after(grace, || attendance.next(left.min(SAYS_SO))) {
            Ok(world) => world,
            Err(MemberError::InReserve { .. }) => {
                // It is not the others' fault that there is no room, and they may need this rank yet.
                began = Instant::now();
                continue;
            }
            Err(waits @ MemberError::Timeout { .. }) if left > SAYS_SO => {
                // Standard error is where people look; nothing is left to do if it is closed.
                let _ = writeln!(stderr(), "muster-train: {waits}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let call_off = Some(attendance.call_off());
        match agreement.join(arguments, &world, arena_bytes, interrupt, grace, call_off) {
            Ok(communicator) => return Ok((world, communicator)),
            Err(error) if !error.is_loss() => return Err(error),
            Err(error) => {
                let _ = writeln!(stderr(), "muster-train: {error}; asking for another place");
            }
        }
    }
}

/// What a training is given.
#[derive(Clone, Copy)]
struct Setting<'a> {
    arguments: &'a Arguments,
    world: &'a World,
    recorder: &'a Recorder,
}

fn train<L: Library, W: Write>(
    library: L,
    Setting { arguments, world, recorder }: Setting<'_>,
    interrupt: &mut Interrupt,
    report: &mut Report<W>,
) -> Result<Outcome, Error> {
    let mut data = load(arguments)?;
    let agreement = Agreement { data: data.checksum()?, settings: settings_checksum(arguments) };
    let (training, test) = data.split(arguments.test_fraction, arguments.seed);
    let needed = world.size * arguments.learning.accumulate;
    if training.len() < needed {
        return Err(Error::TooFewSamples { samples: training.len(), needed });
    }
    let described = Described::new(arguments, &data)?;
    if let Dataset::Table(table) = &mut data {
        table.scale_by(&training)?;
    }
    if let (0, Some(folder)) = (world.rank, &arguments.output) {
        model_file::prepare(folder)?;
    }

    let is_elastic = world.rendezvous.is_some();
    let (model, options) = (described.build::<L>(), arguments.options(is_elastic));
    if is_elastic && options.sharding != Sharding::None && options.shard_ranks.is_some() {
        let message =
            "--shard-ranks has no place in an elastic training, whose number of ranks changes".into();
        return Err(Error::Model { message });
    }
    // What is padded to the number of ranks may need most room with fewer of them.
    let sizes = 1..=world.most();
    let arena_bytes = sizes.map(|size| Engine::arena_bytes(&model, &options, size)).max().unwrap_or_default();
    let mut attendance = Attendance::begin(world)?;
    let grace = Duration::ZERO;
    let (world, communicator) = if let Some(attendance) = &mut attendance {
        come_together(attendance, agreement, arguments, arena_bytes, interrupt, grace)?
    } else {
        (world.clone(), agreement.join(arguments, world, arena_bytes, interrupt, grace, None)?)
    };
    let failed = Error::of_rank(world.rank);
    let mut engine = Engine::new(library, model, communicator, options, arguments.seed).map_err(failed)?;
    engine.record(recorder.clone());
    let keeper = Keeper::new(&arguments.checkpointing, &engine, described.to_json())?;
    let mut trainer = Trainer {
        keeper,
        arguments,
        world,
        attendance,
        agreement,
        arena_bytes,
        described,
        engine,
        data,
        sampler: DistributedSampler::new(training.len(), arguments.seed),
        regrouped: None,
        cursor: Cursor::START,
        training,
        test,
        batch: Batch::default(),
    };
    let began = Instant::now();
    let (outcome, trainer) = loop {
        let trained = trainer.begin(report).and_then(|()| trainer.epochs(interrupt, report));
        let ended = match trained {
            Ok(End::Trained) => trainer.finish(began, report).map(Some),
            Ok(End::Change) => Ok(None),
            Err(error) => Err(error),
        };
        trainer = match ended {
            Ok(Some(outcome)) => break (outcome, trainer),
            Ok(None) => trainer.change(interrupt, report)?,
            Err(error) => trainer.recover(error, interrupt, report)?,
        };
    };
    let is_first = trainer.engine.rank() == 0;
    // Rank 0 has written the model: now nobody needs to join any more.
    if let Some(attendance) = trainer.attendance.filter(|_| is_first) {
        attendance.finish();
    }
    Ok(outcome)
}

/// What must be the same on all ranks for training to be the same: everything but paths, deadlines and threads.
fn settings_checksum(arguments: &Arguments) -> u64 {
    let Arguments { model, shape, learning, division, computing, seed, test_fraction, .. } = arguments;
    let library = computing.library;
    let text = format!("{model:?} {shape:?} {learning:?} {division:?} {library:?} {seed} {test_fraction}");
    checksum(text.bytes().map(u64::from))
}
