//! The trainer on libtorch: what holds for every tensor library, and that it learns what it learns on candle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../shared/mod.rs"]
mod shared;

use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;

use muster_trainer_runtime::parallel::{Engine, GradientType, Options, Sharding};
use muster_trainer_runtime::tensor::{Candle, Library, Torch, set_torch_threads};
use proptest::prop_assert;
use proptest::test_runner::TestCaseError;

use crate::shared::operations;
use crate::shared::tasks::{Task, all_ways_of_sharding_agree, on_ranks, options, trained};

/// On one thread, as ranks that share processors are.
fn torch() -> Torch {
    static ONE_THREAD: Once = Once::new();
    ONE_THREAD.call_once(|| set_torch_threads(1));
    Torch::cpu()
}

/// Whether two values are the same but for the order in which sums were taken.
fn is_close(left: f32, right: f32, tolerance: f32) -> bool {
    (left - right).abs() <= tolerance * (1.0 + left.abs())
}

#[test]
fn operations_have_their_gradients() {
    operations::have_their_gradients(&torch());
}

#[test]
fn what_does_not_fit_is_an_error() {
    operations::refuse_what_does_not_fit(&torch());
}

#[test]
fn gradients_are_given_at_leaves_alone() {
    operations::give_gradients_at_leaves_alone(&torch());
}

#[test]
fn operations_give_what_those_of_candle_give() {
    let (torch, fail) =
        (torch(), |error: muster_trainer_runtime::tensor::Error| TestCaseError::fail(error.to_string()));
    operations::for_many(|operation, values, random| {
        let ours = operations::given(&Candle, operation, values, random).map_err(fail)?;
        let theirs = operations::given(&torch, operation, values, random).map_err(fail)?;
        prop_assert!(ours.shape == theirs.shape, "shapes {:?} and {:?}", ours.shape, theirs.shape);
        let gradients = ours.gradients.iter().zip(&theirs.gradients);
        for (ours, theirs) in gradients.chain([(&ours.result, &theirs.result)]) {
            let close = ours.iter().zip(theirs).all(|(ours, theirs)| is_close(*ours, *theirs, 1e-5));
            prop_assert!(ours.len() == theirs.len() && close, "{ours:?} and {theirs:?}");
        }
        Ok(())
    });
}

/// The losses of steps that two ranks take on the same samples again and again.
fn losses<L: Library + Sync>(library: &L, task: Task) -> Vec<f32> {
    let learn = |group| {
        let mut engine =
            Engine::new(library.clone(), task.model(), group, options(Sharding::None), 5).unwrap();
        let first = 6 * engine.rank();
        let step = |_| {
            let accumulated = task.samples(first, 6, |input, labels| engine.accumulate(input, labels, true));
            engine.step(0.003, [accumulated.unwrap().loss]).unwrap().averages[0]
        };
        (0..12).map(step).collect()
    };
    on_ranks(2, learn).swap_remove(0)
}

#[test]
fn all_models_learn_on_libtorch_what_they_learn_on_candle() {
    let torch = torch();
    for task in Task::ALL {
        let (ours, theirs) = (losses(&Candle, task), losses(&torch, task));
        assert!(ours[11] < ours[0], "{task:?} learns: {ours:?}");
        // The steps are small: of a gradient that is zero but for rounding, AdamW makes a whole one.
        for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert!(is_close(*ours, *theirs, 1e-5), "{task:?} at step {step}: {ours} and {theirs}");
        }
    }
}

#[test]
fn all_ways_of_sharding_agree_to_the_bit_on_all_ranks() {
    all_ways_of_sharding_agree(&torch(), &[1, 3]);
}

#[test]
fn recomputed_and_compressed_gradients_agree_however_they_are_shared() {
    let torch = torch();
    for task in Task::ALL {
        let of =
            |options| on_ranks(2, move |group| trained(torch, task, group, options, (1, 2))).swap_remove(1);
        let plain = of(options(Sharding::None));
        assert_eq!(of(Options { recompute: true, ..options(Sharding::Optimizer) }), plain, "{task:?}");
        let compressed = |sharding| of(Options { gradient_type: GradientType::Bf16, ..options(sharding) });
        assert_eq!(compressed(Sharding::Parameters), compressed(Sharding::None), "{task:?}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let message = Torch::gpu(64).unwrap_err().to_string();
    assert!(message.contains("GPU 64 is not there"), "{message}");
}

/// The ranks of one job on a text, each as a process.
fn learned(library: &str, folder: &std::path::Path) -> Vec<Output> {
    let text = folder.join("text.txt");
    fs_err::write(&text, "the quick brown fox jumps over the lazy dog. ".repeat(40)).unwrap();
    let peers = tempfile::tempdir_in(folder).unwrap();
    let start = |rank: usize| -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster-train"));
        let model = ["--model=gpt", "--width=16", "--depth=1", "--heads=2", "--context=16"];
        command.arg(format!("--library={library}")).arg("--data").arg(&text).args(model);
        command.args(["--batch-size=4", "--max-steps=12", "--log-every=4", "--seed=3"]);
        command.args(["--sharding=optimizer", "--threads=1"]);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", "2").env("MUSTER_PEERS_DIR", peers.path());
        command.env("MASTER_ADDR", "text-master-0").env("MASTER_PORT", "23456");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ranks: Vec<Child> = (0..2).map(start).collect();
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

#[test]
fn the_program_trains_on_either_library() {
    let folder = tempfile::tempdir().unwrap();
    let losses = |library: &str| -> Vec<f32> {
        let outputs = learned(library, folder.path());
        for output in &outputs {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let lines = String::from_utf8(outputs[0].stdout.clone()).unwrap();
        let loss = |line: &str| line.split(' ').find_map(|field| field.strip_prefix("loss="))?.parse().ok();
        lines.lines().filter(|line| line.starts_with("step=")).filter_map(loss).collect()
    };
    let (candle, torch) = (losses("candle"), losses("libtorch"));
    assert_eq!([candle.len(), torch.len()], [4; 2], "steps 1, 4, 8 and 12");
    assert!(candle[3] < candle[0]);
    for (candle, torch) in candle.iter().zip(&torch) {
        // Four digits are printed.
        assert!(is_close(*candle, *torch, 2e-4), "{candle} and {torch}");
    }
}
