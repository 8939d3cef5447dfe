//! Small models and what ranks that are threads learn of them, on any tensor library.

use std::path::Path;

use muster_collectives::{Communicator, Options as GroupOptions};
use muster_trainer_runtime::model::{Cnn, Gpt, Input, Mlp, Model, Vit};
use muster_trainer_runtime::parallel::{Engine, Options, Sharding};
use muster_trainer_runtime::tensor::Library;

pub(crate) const SHARDINGS: [Sharding; 4] =
    [Sharding::None, Sharding::Optimizer, Sharding::Gradients, Sharding::Parameters];

/// A small model, and as many samples as asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    Mlp,
    Cnn,
    Vit,
    Gpt,
}

impl Task {
    pub(crate) const ALL: [Self; 4] = [Self::Mlp, Self::Cnn, Self::Vit, Self::Gpt];

    pub(crate) fn model<L: Library>(self) -> Model<L> {
        match self {
            Self::Mlp => Mlp { sizes: vec![6, 9, 5, 3] }.build(),
            Self::Cnn => Cnn { image: [2, 5, 4], channels: vec![3, 4], classes: 3 }.build(),
            Self::Vit => Vit { image: [1, 4, 6], patch: 2, width: 8, depth: 2, heads: 2, classes: 3 }.build(),
            Self::Gpt => Gpt { vocabulary: 11, context: 6, width: 8, depth: 2, heads: 2 }.build(),
        }
    }

    fn shape(self) -> &'static [usize] {
        match self {
            Self::Cnn => &[2, 5, 4],
            Self::Vit => &[1, 4, 6],
            Self::Mlp | Self::Gpt => &[6],
        }
    }

    /// Calls `work` with the samples from `first`, which are always the same ones.
    pub(crate) fn samples<R>(
        self,
        first: usize,
        count: usize,
        work: impl FnOnce(Input<'_>, &[u32]) -> R,
    ) -> R {
        let size: usize = self.shape().iter().product();
        let place = |index: usize| (first * size + index) as f32;
        if let Self::Gpt = self {
            let token = |index: usize| ((place(index) * 0.73).sin().abs() * 10.9) as u32;
            let tokens: Vec<u32> = (0..count * size).map(token).collect();
            let labels: Vec<u32> = (1..=count * size).map(token).collect();
            return work(Input::Tokens { tokens: &tokens, length: size }, &labels);
        }
        let values: Vec<f32> = (0..count * size).map(|index| (place(index) * 0.37).sin()).collect();
        let labels: Vec<u32> = (0..count).map(|sample| ((first + sample) % 3) as u32).collect();
        work(Input::Numbers { values: &values, shape: self.shape() }, &labels)
    }
}

pub(crate) fn group(directory: &Path, rank: usize, world_size: usize) -> GroupOptions {
    let mut options = GroupOptions::new(directory, "engine", rank, world_size);
    options.arena_bytes = 128 << 20;
    options
}

pub(crate) fn on_ranks<R: Send>(world_size: usize, work: impl Fn(Communicator) -> R + Sync) -> Vec<R> {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                let (work, options) = (&work, group(directory.path(), rank, world_size));
                scope.spawn(move || work(Communicator::connect(&options).unwrap()))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

pub(crate) fn options(sharding: Sharding) -> Options {
    // Some blocks are taken together, others are not.
    Options { sharding, smallest_unit: 150, clip_norm: Some(0.5), ..Options::default() }
}

/// What a training comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trained {
    pub(crate) parameters: Vec<(String, Vec<f32>)>,
    /// Of each step, averaged over the ranks.
    pub(crate) losses: Vec<f32>,
    /// On samples that are the same for all ranks.
    pub(crate) evaluation: f32,
}

/// A few steps, each of `batches` batches of `size` samples on every rank.
pub(crate) fn trained<L: Library>(
    library: L,
    task: Task,
    communicator: Communicator,
    options: Options,
    (batches, size): (usize, usize),
) -> Trained {
    let mut engine = Engine::new(library, task.model(), communicator, options, 5).unwrap();
    let (rank, world_size) = (engine.rank(), engine.world_size());
    let mut losses = Vec::new();
    for step in 0..4 {
        let mut loss = 0.0;
        for batch in 0..batches {
            let first = ((step * world_size + rank) * batches + batch) * size;
            let outcome = task.samples(first, size, |input, labels| {
                engine.accumulate(input, labels, batch + 1 == batches).unwrap()
            });
            loss += outcome.loss / batches as f32;
        }
        let outcome = engine.step(0.01, [loss]).unwrap();
        assert!(outcome.gradient_norm.unwrap() > 0.0);
        losses.push(outcome.averages[0]);
    }
    let mut parameters = Vec::new();
    engine
        .visit_parameters(|parameter, values| parameters.push((parameter.name.clone(), values.to_vec())))
        .unwrap();
    let evaluation = task.samples(0, 7, |input, labels| engine.evaluate(input, labels).unwrap());
    Trained { parameters, losses, evaluation: evaluation.loss }
}

/// Whatever a rank holds only its share of, it learns the same, to the bit, and so do all ranks.
pub(crate) fn all_ways_of_sharding_agree<L: Library + Sync>(library: &L, world_sizes: &[usize]) {
    for task in Task::ALL {
        for &world_size in world_sizes {
            let of = |sharding| {
                let work = |group| trained(library.clone(), task, group, options(sharding), (1, 2));
                on_ranks(world_size, work)
            };
            let replicated = of(Sharding::None);
            for sharding in SHARDINGS {
                let results = of(sharding);
                assert!(
                    results.iter().all(|result| *result == replicated[0]),
                    "{task:?} {world_size} {sharding:?}"
                );
            }
        }
    }
}
