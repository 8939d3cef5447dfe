//! Ranks that are killed: how soon the others know, how soon they train again, and what was lost.

mod job;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use job::{Job, RANKS};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::area::Settings;

/// Random kills in each way to go on.
const SEEDS: u64 = 50;

/// Steps of a job, among which one is chosen.
const STEPS: u64 = 400;

/// What one kill came to.
struct Recovery {
    /// From the kill until the last of the others knew.
    known: Duration,
    /// From the kill until the last of the others had taken a step again.
    trains: Duration,
    /// Steps that were computed, or under way, and are not in the state that the ranks went on with.
    lost: f64,
    /// The loss on held-out samples at the end.
    loss: f64,
    model: Vec<u8>,
}

/// In milliseconds, seconds, seconds and steps: the worst time until the others knew of 100 kills, until they trained
/// again with fewer ranks, until they did with a rank started again, and the most steps lost; the share of models that
/// are the undisturbed one to the bit with a rank started again; the worst loss with fewer ranks, over the undisturbed.
pub(in crate::trainer_area) async fn random_kills(settings: &Settings) -> Result<Vec<f64>> {
    let folder = tempfile::Builder::new().prefix("muster-bars-").tempdir()?;
    let data = folder.path().join("data.csv");
    job::write_data(&data)?;
    let data = format!("--data={}", data.display());
    let model = folder.path().join("model");
    let undisturbed = run(settings, &data, &model, "wait", None).await?;
    let (mut known, mut continued, mut waited, mut lost) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    let (mut equal, mut loss) = (0, 0.0_f64);
    for seed in 0..SEEDS {
        let recovery =
            run(settings, &data, &model, "wait", Some(seed)).await.with_context(|| format!("seed {seed}"))?;
        known = known.max(recovery.known.as_secs_f64());
        waited = waited.max(recovery.trains.as_secs_f64());
        lost = lost.max(recovery.lost);
        equal += u64::from(recovery.model == undisturbed.model);
        let seed = seed + SEEDS;
        let recovery = run(settings, &data, &model, "continue", Some(seed))
            .await
            .with_context(|| format!("seed {seed}"))?;
        known = known.max(recovery.known.as_secs_f64());
        continued = continued.max(recovery.trains.as_secs_f64());
        lost = lost.max(recovery.lost);
        loss = loss.max(recovery.loss / undisturbed.loss);
    }
    Ok(vec![known * 1e3, continued, waited, lost, equal as f64 / SEEDS as f64, loss])
}

/// Runs a job to its end; with a seed, a random rank is killed at a random step.
async fn run(
    settings: &Settings,
    data: &str,
    model: &std::path::Path,
    on_loss: &str,
    seed: Option<u64>,
) -> Result<Recovery> {
    let (on_loss_word, output) = (format!("--on-loss={on_loss}"), format!("--output={}", model.display()));
    let steps = format!("--max-steps={STEPS}");
    let words = [
        data,
        &on_loss_word,
        &output,
        &steps,
        "--epochs=1000",
        "--batch-size=64",
        "--hidden=128,64",
        "--log-every=1",
    ];
    let mut job = Job::start(settings, &words)?;
    let mut recovery = Recovery {
        known: Duration::ZERO,
        trains: Duration::ZERO,
        lost: 0.0,
        loss: f64::NAN,
        model: Vec::new(),
    };
    if let Some(seed) = seed {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let victim = random.random_range(0..RANKS);
        let step = random.random_range(10..STEPS / 2 + 10);
        job.line_with(|line| line.number("step").is_some_and(|at| at >= step as f64)).await?;
        let killed = job.kill(victim).await?;
        if on_loss == "wait" {
            job.start_rank(victim)?;
        }
        let (mut known, mut grouped, mut trains) = ([None; RANKS], [None; RANKS], false);
        let (mut furthest, mut resumed) = (0.0_f64, f64::NAN);
        while !trains
            || known.iter().flatten().count() < RANKS - 1
            || grouped.iter().flatten().count() < RANKS - 1
        {
            let line = job.line().await?;
            if line.text.starts_with("event=loss") {
                known[line.rank] = Some(line.at);
                furthest = furthest.max(line.number("step").unwrap_or(f64::NAN));
            } else if line.text.starts_with("event=regrouped") {
                grouped[line.rank] = Some(line.at);
                resumed = line.number("step").unwrap_or(f64::NAN);
            } else if line.text.starts_with("step=") && grouped.iter().any(Option::is_some) && !trains {
                trains = true;
                recovery.trains = line.at - killed;
            }
        }
        let last = known.iter().flatten().max().copied().unwrap_or(killed);
        recovery.known = last.saturating_duration_since(killed);
        // The step that was under way is lost too.
        recovery.lost = furthest + 1.0 - resumed;
    }
    let result = job.line_with(|line| line.text.starts_with("result ")).await?;
    recovery.loss = result.number("test_loss").context("no loss in the result")?;
    job.finish().await?;
    recovery.model = fs_err::read(model.join("model.safetensors"))?;
    Ok(recovery)
}

/// How often a rank is killed.
const MEAN_TIME_BETWEEN_FAILURES: Duration = Duration::from_secs(15);

/// How long ranks are killed.
const LOOP: Duration = Duration::from_mins(10);

/// How long the same job is left alone, before and after.
const UNDISTURBED: Duration = Duration::from_secs(30);

/// The share of the steps of an undisturbed job that one with a failure every 15 seconds takes, and how many more file
/// descriptors and pages its processes hold at the end than at the beginning, in per cent.
pub(in crate::trainer_area) async fn kill_loop(settings: &Settings) -> Result<Vec<f64>> {
    let folder = tempfile::Builder::new().prefix("muster-bars-").tempdir()?;
    let data = folder.path().join("data.csv");
    job::write_data(&data)?;
    let data = format!("--data={}", data.display());
    let words = [
        &data,
        "--on-loss=wait",
        "--epochs=100000000",
        "--batch-size=64",
        "--hidden=128,64",
        "--log-every=10",
    ];
    let mut job = Job::start(settings, &words)?;
    let before = steps_within(&mut job, UNDISTURBED).await?;
    // A rank that is never killed has seen every failure.
    let survivor = job.process(0).context("rank 0 has ended")?;
    let held = holdings(survivor)?;
    let (began, mut steps, mut failures) = (Instant::now(), 0.0, 0_u32);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
    while began.elapsed() < LOOP {
        let victim = random.random_range(1..RANKS);
        job.kill(victim).await?;
        job.start_rank(victim)?;
        failures += 1;
        steps += steps_within(&mut job, MEAN_TIME_BETWEEN_FAILURES).await?;
    }
    let disturbed = steps / began.elapsed().as_secs_f64();
    let held_after = holdings(survivor)?;
    let after = steps_within(&mut job, UNDISTURBED).await?;
    let undisturbed = f64::midpoint(before, after) / UNDISTURBED.as_secs_f64();
    crate::note(&format!(
        "{failures} failures in {} s: {disturbed:.0} steps a second, undisturbed {undisturbed:.0}; the survivor held {} \
         descriptors and {} MiB, then {} and {}",
        began.elapsed().as_secs(),
        held.0,
        held.1 >> 20,
        held_after.0,
        held_after.1 >> 20
    ));
    let more = |before: u64, after: u64| (after as f64 / before as f64 - 1.0) * 100.0;
    Ok(vec![disturbed / undisturbed, more(held.0, held_after.0), more(held.1, held_after.1)])
}

/// Steps that rank 0 says to have taken in a while from now.
async fn steps_within(job: &mut Job<'_>, length: Duration) -> Result<f64> {
    let end = Instant::now() + length;
    let (mut first, mut last) = (None, None);
    loop {
        let line = job.line_with(|line| line.rank == 0 && line.text.starts_with("step=")).await?;
        if line.at >= end {
            break;
        }
        let step = line.number("step").context("a step without a number")?;
        first.get_or_insert(step);
        last = Some(step);
    }
    let steps = last.zip(first).map(|(last, first)| last - first);
    ensure!(steps.is_some_and(|steps| steps > 0.0), "no step within {} s", length.as_secs());
    steps.context("no step")
}

/// Descriptors and bytes of memory that a process holds.
fn holdings(process: u32) -> Result<(u64, u64)> {
    let descriptors = fs_err::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
    let status = fs_err::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = resident.trim().trim_end_matches("kB").trim().parse()?;
    Ok((descriptors, kibibytes << 10))
}
