//! Every operation on the file system is cut short once: the process is killed there, the power goes there, or the disk
//! refuses it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::store::simulated_disk::{Fault, SimulatedDisk};
use crate::store::{Disk, Store};
use crate::{Checkpoints, ChunkSize, DataType, Place, Retention, Saver, SaverOptions, Shard, Tensor};

const RANKS: usize = 2;
const STEPS: u64 = 4;
const LENGTH: u64 = 1000;
const PATIENCE: Duration = Duration::from_mins(1);

type Failed = Box<dyn std::error::Error>;

fn options() -> SaverOptions {
    SaverOptions { chunk_size: ChunkSize::new(1024).unwrap(), ..SaverOptions::default() }
}

fn tensor() -> Tensor {
    Tensor::new("weights", DataType::F32, [LENGTH]).unwrap()
}

fn values(step: u64) -> Vec<u8> {
    (0..LENGTH as u32).flat_map(|index| (index * 31 + step as u32).to_le_bytes()).collect()
}

/// What a crash may have taken and what it may not.
#[derive(Debug, Default)]
struct Progress {
    /// The last step whose commit succeeded.
    committed: Option<u64>,
    /// Failures that were told.
    failures: usize,
}

/// One rank saves its half of a step.
fn save(saver: &mut Saver, rank: usize, step: u64) -> Result<crate::ShardReceipt, crate::SaveError> {
    let (tensor, values) = (tensor(), values(step));
    let half = LENGTH / 2;
    let range = rank as u64 * half..(rank as u64 + 1) * half;
    let mut shard = Shard::new();
    shard.add(&tensor, range.clone(), &values[range.start as usize * 4..range.end as usize * 4]).unwrap();
    saver.begin(step, &shard)?.wait(PATIENCE)
}

fn step(checkpoints: &Checkpoints, savers: &mut [Saver], step: u64) -> Result<(), Failed> {
    let mut receipts = Vec::new();
    for (rank, saver) in savers.iter_mut().enumerate() {
        receipts.push(save(saver, rank, step)?);
    }
    checkpoints.commit(&receipts, json!({ "step": step }))?;
    Ok(())
}

/// Trains: saves, commits, and keeps two. Goes on after failures, as a trainer would.
fn train(store: Arc<dyn Store>, progress: &mut Progress) {
    let checkpoints = Checkpoints::in_store(store);
    let mut savers: Vec<Saver> = (0..RANKS)
        .map(|rank| checkpoints.saver(Place { rank, world_size: RANKS }, options()).unwrap())
        .collect();
    let retention = Retention { newest: NonZeroUsize::new(2).unwrap(), every: None };
    for number in 1..=STEPS {
        match step(&checkpoints, &mut savers, number) {
            Ok(()) => progress.committed = Some(number),
            Err(_) => progress.failures += 1,
        }
        progress.failures += usize::from(checkpoints.retain(&retention).is_err());
    }
    for saver in savers {
        saver.finish(PATIENCE).unwrap();
    }
}

/// What the next start finds: whole checkpoints, among them the last that was committed; garbage goes; saving goes on.
fn start_again(disk: &SimulatedDisk, progress: &Progress) {
    let store: Arc<dyn Store> = Arc::new(Disk::open(disk.clone(), "/run".into()).unwrap());
    let checkpoints = Checkpoints::in_store(Arc::clone(&store));
    let steps = checkpoints.steps().unwrap();
    assert!(progress.committed <= steps.first().copied(), "{progress:?} {steps:?}");
    for step in &steps {
        let checkpoint = checkpoints.checkpoint(*step).unwrap();
        checkpoint.verify().unwrap();
        assert_eq!(checkpoint.state(), &json!({ "step": step }));
        assert!(checkpoint.read("weights", 0..LENGTH).unwrap() == values(*step));
    }
    let intact = checkpoints.latest_intact().unwrap();
    assert_eq!(intact.checkpoint.map(|checkpoint| checkpoint.step()), steps.first().copied());
    assert!(intact.damaged.is_empty());

    checkpoints.clean().unwrap();
    assert_eq!(checkpoints.steps().unwrap(), steps);
    assert_eq!(store.list("").unwrap().len(), steps.len() * (1 + RANKS), "a manifest and the shards");
    assert!(checkpoints.clean().unwrap().is_empty());

    let mut savers: Vec<Saver> = (0..RANKS)
        .map(|rank| checkpoints.saver(Place { rank, world_size: RANKS }, options()).unwrap())
        .collect();
    // The step in which it crashed is done again, and may have been committed.
    let next = progress.committed.map_or(1, |step| step + 1);
    step(&checkpoints, &mut savers, next).unwrap();
    let latest = checkpoints.latest().unwrap().unwrap();
    latest.verify().unwrap();
    assert_eq!(latest.step(), next.max(steps.first().copied().unwrap_or(0)));
}

/// A run on a disk with that fault, or none when it is not reached.
fn run(fault: Fault) -> Option<(SimulatedDisk, Progress)> {
    let disk = SimulatedDisk::with_fault(fault);
    let mut progress = Progress::default();
    match Disk::open(disk.clone(), "/run".into()) {
        Ok(store) => train(Arc::new(store), &mut progress),
        Err(_) => progress.failures += 1,
    }
    disk.was_hit().then_some((disk, progress))
}

#[test]
fn killed_at_any_operation_the_last_checkpoint_loads() {
    let mut at = 0;
    while let Some((disk, progress)) = run(Fault::Dies(at)) {
        disk.restart();
        start_again(&disk, &progress);
        at += 1;
    }
    assert!(at > 100, "only {at} operations");
}

#[test]
fn without_power_at_any_operation_the_last_checkpoint_loads() {
    for seed in 0..4 {
        let mut at = 0;
        while let Some((disk, progress)) = run(Fault::Dies(at)) {
            disk.restart_after_power_loss(seed * 1_000_003 + at as u64);
            start_again(&disk, &progress);
            at += 1;
        }
    }
}

#[test]
fn after_a_refusal_at_any_operation_saving_goes_on() {
    let mut at = 0;
    let mut untold = 0;
    while let Some((disk, progress)) = run(Fault::Fails(at)) {
        if at >= 2 {
            // Two refusals at most: the step's, and that of cleaning up after it.
            assert!(progress.failures <= 2 && progress.committed >= Some(STEPS - 1), "{at}: {progress:?}");
        }
        untold += usize::from(progress.failures == 0);
        start_again(&disk, &progress);
        at += 1;
    }
    // Only the removal of an empty folder may fail without a word: that of each checkpoint that was not kept, and
    // before that, while there were files in it.
    let removals = (STEPS as usize - 2) * (1 + RANKS);
    assert!(untold <= removals, "{untold} of {at} refusals were not told");
}

/// The step that was committed is saved once more with other values, and that is cut short.
#[test]
fn a_step_that_is_saved_again_is_the_old_one_or_the_new_one() {
    let save_all = |checkpoints: &Checkpoints, content: u64| -> Result<(), Failed> {
        let mut receipts = Vec::new();
        for rank in 0..RANKS {
            let mut saver = checkpoints.saver(Place { rank, world_size: RANKS }, options())?;
            let (tensor, values) = (tensor(), values(content));
            let mut shard = Shard::new();
            let half = LENGTH / 2 * rank as u64..LENGTH / 2 * (rank as u64 + 1);
            shard.add(&tensor, half.clone(), &values[half.start as usize * 4..half.end as usize * 4])?;
            receipts.push(saver.begin(1, &shard)?.wait(PATIENCE)?);
        }
        checkpoints.commit(&receipts, json!(content))?;
        Ok(())
    };
    let mut found = Vec::new();
    for at in 0.. {
        let disk = SimulatedDisk::default();
        let open = || Checkpoints::in_store(Arc::new(Disk::open(disk.clone(), "/run".into()).unwrap()));
        save_all(&open(), 7).unwrap();
        let checkpoints = open();
        disk.set_fault(Fault::Dies(disk.operations() + at));
        let result = save_all(&checkpoints, 8);
        if result.is_ok() {
            break;
        }
        disk.restart_after_power_loss(at as u64);
        let checkpoint = open().checkpoint(1).unwrap();
        checkpoint.verify().unwrap();
        let content = checkpoint.state().as_u64().unwrap();
        assert!(checkpoint.read("weights", 0..LENGTH).unwrap() == values(content));
        found.push(content);
    }
    assert!(found.len() > 20 && found.starts_with(&[7; 15]), "{found:?}");
}

#[test]
fn operations_are_the_same_in_every_run() {
    let count = || run(Fault::Fails(0)).map(|(disk, _)| disk.operations());
    assert_eq!(count(), count());
}
