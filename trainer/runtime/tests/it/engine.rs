//! The engine on ranks that are threads: every way to share the work gives the same training.

use muster_collectives::Communicator;
use muster_trainer_runtime::model::{Gpt, Input, Parameter};
use muster_trainer_runtime::parallel::{Engine, Error, GradientType, Options, Sharding};
use muster_trainer_runtime::tensor::Candle;
use proptest::test_runner::{Config, TestRunner};

use crate::shared::tasks::{SHARDINGS, Task, all_ways_of_sharding_agree, group, on_ranks, options, trained};

#[test]
fn all_ways_of_sharding_agree_to_the_bit_on_all_ranks() {
    all_ways_of_sharding_agree(&Candle, &[1, 2, 3, 4]);
}

#[test]
fn recomputed_and_compressed_gradients_agree_however_they_are_shared() {
    for task in Task::ALL {
        let of =
            |options| on_ranks(2, move |group| trained(Candle, task, group, options, (1, 2))).swap_remove(1);
        let plain = of(options(Sharding::None));
        assert_eq!(of(Options { recompute: true, ..options(Sharding::Optimizer) }), plain, "{task:?}");
        let compressed = |sharding| of(Options { gradient_type: GradientType::Bf16, ..options(sharding) });
        let rounded = compressed(Sharding::None);
        assert_eq!(compressed(Sharding::Parameters), rounded, "{task:?}");
        assert_ne!(rounded.parameters, plain.parameters);
        assert!(
            (rounded.evaluation - plain.evaluation).abs() < 0.02,
            "{task:?}: {} and {}",
            rounded.evaluation,
            plain.evaluation
        );
    }
}

fn close(left: &[(String, Vec<f32>)], right: &[(String, Vec<f32>)], tolerance: f32) {
    for ((name, left), (_, right)) in left.iter().zip(right) {
        let far = left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        assert!(far < tolerance, "{name} differs by {far}");
    }
}

#[test]
fn ranks_batches_and_groups_divide_the_same_work() {
    for task in Task::ALL {
        let of = |world_size: usize, options, batches| {
            on_ranks(world_size, move |group| trained(Candle, task, group, options, batches))
        };
        let alone = of(1, options(Sharding::None), (1, 4)).swap_remove(0);
        for sharding in SHARDINGS {
            let several = of(4, options(sharding), (1, 1));
            close(&several[3].parameters, &alone.parameters, 2e-4);
            let batches = of(2, options(sharding), (2, 1));
            close(&batches[0].parameters, &alone.parameters, 2e-4);
            let hybrid = of(4, Options { shard_ranks: Some(2), ..options(sharding) }, (1, 1));
            close(&hybrid[0].parameters, &alone.parameters, 2e-4);
            assert!(
                hybrid.iter().all(|rank| rank.parameters == hybrid[0].parameters),
                "{task:?} {sharding:?}"
            );
        }
    }
}

#[test]
fn shares_take_their_part_of_the_memory_and_one_unit() {
    let world_size = 4;
    let bytes = |sharding| {
        let model = || Gpt { vocabulary: 64, context: 16, width: 64, depth: 6, heads: 4 }.build::<Candle>();
        let count: usize = model().parameters().iter().map(Parameter::count).sum();
        let largest = model()
            .blocks()
            .iter()
            .map(|block| block.parameters().iter().map(Parameter::count).sum::<usize>())
            .max()
            .unwrap();
        let of = |group| {
            let options = Options { smallest_unit: 1, ..options(sharding) };
            let mut engine = Engine::new(Candle, model(), group, options, 1).unwrap();
            // Where batches add up, gradients wait for the last one.
            let input = Input::Tokens { tokens: &[1; 16], length: 16 };
            engine.accumulate(input, &[2; 16], false).unwrap();
            engine.state_bytes()
        };
        (on_ranks(world_size, of)[0], 16 * count, 16 * largest)
    };
    let mut before = usize::MAX;
    for sharding in SHARDINGS {
        let (bytes, whole, block) = bytes(sharding);
        assert!(bytes < before, "{sharding:?} takes {bytes} bytes, the level above {before}");
        before = bytes;
        if sharding == Sharding::Parameters {
            // Parts are filled up to whole cache lines.
            assert!(bytes <= whole / world_size + block + 16 * 1024, "{bytes} of {whole} and {block}");
        }
    }
}

#[test]
fn shards_that_do_not_divide_the_ranks_are_refused() {
    let refused = on_ranks(3, |group| {
        let options = Options { shard_ranks: Some(2), sharding: Sharding::Optimizer, ..Options::default() };
        match Engine::new(Candle, Task::Mlp.model(), group, options, 1) {
            Err(Error::Options(message)) => message,
            _ => panic!("it must be refused"),
        }
    });
    assert!(refused.iter().all(|message| message == "shards of 2 ranks do not divide 3 ranks"));
}

#[test]
fn data_that_does_not_fit_is_named() {
    let message = |task: Task, input: Input<'_>, labels: &[u32]| {
        let directory = tempfile::tempdir().unwrap();
        let group = Communicator::connect(&group(directory.path(), 0, 1)).unwrap();
        let mut engine = Engine::new(Candle, task.model(), group, Options::default(), 1).unwrap();
        engine.accumulate(input, labels, true).unwrap_err().to_string()
    };
    let tokens = |tokens: &'static [u32], length| Input::Tokens { tokens, length };
    assert!(
        message(Task::Gpt, tokens(&[1, 12], 2), &[1, 1]).contains("token 12 is outside a vocabulary of 11")
    );
    assert!(message(Task::Gpt, tokens(&[1; 7], 7), &[1; 7]).contains("does not fit a context of 6"));
    assert!(message(Task::Gpt, tokens(&[1; 2], 2), &[1, 11]).contains("label 11 is not one of 11 classes"));
    assert!(message(Task::Mlp, tokens(&[1; 2], 2), &[1, 1]).contains("a block of numbers was fed tokens"));
    let numbers = Input::Numbers { values: &[0.0; 5], shape: &[5] };
    assert!(message(Task::Mlp, numbers, &[1]).contains("the tensor library failed"));
}

#[test]
fn a_lost_rank_is_named_and_the_others_fail() {
    let results = on_ranks(3, |group| {
        let mut engine =
            Engine::new(Candle, Task::Mlp.model(), group, options(Sharding::Gradients), 1).unwrap();
        let rank = engine.rank();
        for step in 0..10 {
            if rank == 1 && step == 3 {
                return None;
            }
            let result = Task::Mlp
                .samples(step, 2, |input, labels| engine.accumulate(input, labels, true))
                .and_then(|_| engine.step(0.1, [0.0]));
            if let Err(error) = result {
                return Some((step, error.to_string()));
            }
        }
        panic!("a rank is gone")
    });
    for rank in [0, 2] {
        let (step, message) = results[rank].clone().unwrap();
        assert_eq!(step, 3);
        assert!(message.starts_with("lost rank 1 on "), "{message}");
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    // One step of plain descent tells the gradient: the optimizer's first step has the sign of it, so the loss of a
    // small step must fall for any start.
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
    runner
        .run(&(0_u64..1000, 0_usize..4), |(seed, task)| {
            let task = Task::ALL[task];
            let directory = tempfile::tempdir().unwrap();
            let group = Communicator::connect(&group(directory.path(), 0, 1)).unwrap();
            let mut engine = Engine::new(Candle, task.model(), group, Options::default(), seed).unwrap();
            let before = task.samples(3, 5, |input, labels| engine.accumulate(input, labels, true)).unwrap();
            engine.step(1e-4, [0.0]).unwrap();
            let after = task.samples(3, 5, |input, labels| engine.evaluate(input, labels)).unwrap();
            proptest::prop_assert!(after.loss < before.loss, "{task:?}: {} then {}", before.loss, after.loss);
            Ok(())
        })
        .unwrap();
}
