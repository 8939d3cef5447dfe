//! Checks everything that only a GPU can show: makes every call on the GPUs of this machine, one rank each, and compares
//! the results; ends groups in all ways. One line a check, then figures; the exit code is 1 if a check failed and 2 if
//! there is no GPU or no NCCL.
//!
//! `cargo run --release -p muster-nccl --example gpu_check [-- RANKS [LARGEST_BYTES]]`

#![allow(clippy::print_stdout, reason = "the lines are the program's output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use muster_collectives::{Element, Reduction, benchmark, bf16, f16};
use muster_nccl::{Communicator, Cuda, Error, Joining, Nccl, Options, UniqueId, detect};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<ExitCode, Failure> {
    let number = |place: usize| std::env::args().nth(place).map(|text| text.parse()).transpose();
    Ok(match check(number(1)?, number(2)?.unwrap_or(256 << 20))? {
        None => ExitCode::from(2),
        Some(0) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

/// How many checks failed; none were made where something is missing.
pub(crate) fn check(ranks: Option<usize>, largest: usize) -> Result<Option<usize>, Failure> {
    let (driver, nccl) = match detect() {
        Ok(found) => found,
        Err(missing) => {
            println!("cannot check: {missing}");
            return Ok(None);
        }
    };
    println!(
        "driver for CUDA {}, {} GPUs, {}; NCCL {} from {}",
        driver.cuda,
        driver.devices,
        Cuda::open(0)?.name()?,
        nccl.version(),
        nccl.path().display()
    );
    let ranks = ranks.unwrap_or(driver.devices);
    let gpus = (0..ranks).map(Cuda::open).collect::<Result<Vec<_>, _>>()?;
    let id = UniqueId::new(&nccl)?;
    let failures: usize = std::thread::scope(|scope| {
        let nccl = &nccl;
        let check = |(rank, gpu)| scope.spawn(move || check_rank(nccl, id, gpu, rank, ranks, largest));
        let threads: Vec<_> = gpus.iter().enumerate().map(check).collect();
        let failures = threads.into_iter().map(|thread| match thread.join() {
            Ok(Ok(failures)) => failures,
            Ok(Err(error)) => {
                println!("FAILED {error}");
                1
            }
            Err(_) => 1,
        });
        failures.sum()
    });
    println!("{failures} checks failed");
    Ok(Some(failures))
}

/// Names and results of the checks of a rank.
struct Checks {
    rank: usize,
    failures: usize,
}

impl Checks {
    fn check(&mut self, name: &str, holds: bool) {
        let rank = self.rank;
        println!("{} rank {rank}: {name}", if holds { "ok    " } else { "FAILED" });
        self.failures += usize::from(!holds);
    }
}

fn check_rank(
    nccl: &Nccl,
    id: UniqueId,
    gpu: &Cuda,
    rank: usize,
    ranks: usize,
    largest: usize,
) -> Result<usize, Failure> {
    let mut checks = Checks { rank, failures: 0 };
    let options = Options { join_deadline: Duration::from_mins(1), ..Options::new(rank, ranks) };
    let began = Instant::now();
    let mut group = Communicator::join(nccl, id, gpu, &options)?;
    checks.check(&format!("joined in {:.1?}", began.elapsed()), group.world_size() == ranks);
    check_type::<f32>(&mut checks, &mut group, |number| number as f32)?;
    check_type::<f64>(&mut checks, &mut group, |number| number as f64)?;
    check_type::<f16>(&mut checks, &mut group, |number| f16::from_f32(number as f32))?;
    check_type::<bf16>(&mut checks, &mut group, |number| bf16::from_f32(number as f32))?;
    check_type::<i32>(&mut checks, &mut group, |number| number as i32)?;
    check_type::<i64>(&mut checks, &mut group, |number| number as i64)?;
    check_type::<i8>(&mut checks, &mut group, |number| number as i8)?;
    check_type::<u8>(&mut checks, &mut group, |number| number as u8)?;
    check_split(&mut checks, &mut group, nccl)?;
    print_times(&mut group, largest)?;
    let began = Instant::now();
    let closed = group.close();
    checks.check(&format!("closed in {:.1?}", began.elapsed()), closed.is_ok());
    if rank == 0 {
        check_ends(&mut checks, nccl, gpu, largest)?;
    }
    Ok(checks.failures)
}

/// All calls; values are small whole numbers, exact in every type.
fn check_type<T: Element + PartialEq>(
    checks: &mut Checks,
    group: &mut Communicator,
    of: impl Fn(usize) -> T,
) -> Result<(), Failure> {
    const COUNT: usize = 1037;
    let (rank, ranks, name) = (group.rank(), group.world_size(), T::DATA_TYPE.name());
    for reduction in
        [Reduction::Sum, Reduction::Average, Reduction::Minimum, Reduction::Maximum, Reduction::Product]
    {
        // What is averaged is a multiple of the number of ranks, so that averages are whole.
        let scale = if reduction == Reduction::Average { ranks } else { 1 };
        let given = |rank: usize, index: usize| ((rank + index) % 3 + 1) * scale;
        let own = |count: usize| (0..count).map(|index| of(given(rank, index))).collect::<Vec<T>>();
        let value = |index: usize| {
            let values = (0..ranks).map(|rank| given(rank, index));
            match reduction {
                Reduction::Sum => Some(values.sum()),
                // Small enough for eight bits up to six ranks, and products up to four.
                Reduction::Average => (ranks <= 6).then(|| values.sum::<usize>() / ranks),
                Reduction::Minimum => values.min(),
                Reduction::Maximum => values.max(),
                _ => (ranks <= 4).then(|| values.product()),
            }
        };
        let right = |data: &[T], from: usize| {
            data.iter()
                .enumerate()
                .all(|(index, found)| value(from + index).is_none_or(|value| *found == of(value)))
        };
        let mut buffer = group.upload(&own(COUNT))?;
        group.all_reduce(&mut buffer, reduction)?.wait()?;
        checks.check(&format!("all_reduce {name} {}", reduction.name()), right(&group.download(&buffer)?, 0));

        let mut buffer = group.upload(&own(COUNT))?;
        group.reduce(&mut buffer, reduction, 0)?.wait()?;
        let data = group.download(&buffer)?;
        let holds = if rank == 0 { right(&data, 0) } else { data == own(COUNT) };
        checks.check(&format!("reduce {name} {}", reduction.name()), holds);

        let send = group.upload(&own(COUNT * ranks))?;
        let mut receive = group.allocate(COUNT)?;
        group.reduce_scatter(&send, &mut receive, reduction)?.wait()?;
        let holds = right(&group.download(&receive)?, rank * COUNT);
        checks.check(&format!("reduce_scatter {name} {}", reduction.name()), holds);
    }
    check_movements(checks, group, COUNT, of)
}

fn check_movements<T: Element + PartialEq>(
    checks: &mut Checks,
    group: &mut Communicator,
    count: usize,
    of: impl Fn(usize) -> T,
) -> Result<(), Failure> {
    let (rank, ranks, name) = (group.rank(), group.world_size(), T::DATA_TYPE.name());
    let part = |from: usize, to: usize| {
        (0..count).map(|index| of((from * 17 + to * 5 + index) % 100)).collect::<Vec<T>>()
    };
    let from_all = |to: usize| (0..ranks).flat_map(|from| part(from, to)).collect::<Vec<T>>();

    let mut buffer = group.upload(&part(rank, 0))?;
    group.broadcast(&mut buffer, ranks - 1)?.wait()?;
    checks.check(&format!("broadcast {name}"), group.download(&buffer)? == part(ranks - 1, 0));

    let send = group.upload(&part(rank, 0))?;
    let mut receive = group.allocate(count * ranks)?;
    group.all_gather(&send, &mut receive)?.wait()?;
    checks.check(&format!("all_gather {name}"), group.download(&receive)? == from_all(0));

    let mut receive = group.allocate(count * ranks)?;
    group.gather(&send, &mut receive, 0)?.wait()?;
    checks.check(&format!("gather {name}"), rank != 0 || group.download(&receive)? == from_all(0));

    let send = group.upload(&(0..ranks).flat_map(|to| part(rank, to)).collect::<Vec<T>>())?;
    let mut receive = group.allocate(count)?;
    group.scatter(&send, &mut receive, 0)?.wait()?;
    checks.check(&format!("scatter {name}"), group.download(&receive)? == part(0, rank));

    let mut receive = group.allocate(count * ranks)?;
    group.all_to_all(&send, &mut receive)?.wait()?;
    checks.check(&format!("all_to_all {name}"), group.download(&receive)? == from_all(rank));

    if ranks > 1 && rank < 2 {
        let mut buffer = group.upload(&part(rank, 7))?;
        if rank == 0 { group.send(&buffer, 1)? } else { group.receive(&mut buffer, 0)? }.wait()?;
        checks.check(&format!("send and receive {name}"), group.download(&buffer)? == part(0, 7));
    }
    Ok(())
}

fn check_split(checks: &mut Checks, group: &mut Communicator, nccl: &Nccl) -> Result<(), Failure> {
    match group.split(Some(group.rank() as u32 % 2), 0) {
        Ok(Some(mut part)) => {
            let mut buffer = part.upload(&[1_i32])?;
            part.all_reduce(&mut buffer, Reduction::Sum)?.wait()?;
            checks.check("split", part.download(&buffer)? == [part.world_size() as i32]);
        }
        Err(Error::NoSplit { .. }) => println!("NCCL {} has no split: not checked", nccl.version()),
        other => checks.check(&format!("split: {other:?}"), false),
    }
    Ok(())
}

/// Times of calls that are waited for one by one.
fn print_times(group: &mut Communicator, largest: usize) -> Result<(), Failure> {
    for bytes in benchmark::sizes(1 << 10, largest, 8) {
        let mut buffer = group.allocate::<f32>(bytes / 4)?;
        let mut times = Vec::new();
        for _ in 0..25 {
            let began = Instant::now();
            group.all_reduce(&mut buffer, Reduction::Sum)?.wait()?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        if group.rank() == 0 {
            let median = times[times.len() / 2];
            let bandwidth = bytes as f64 / median.as_secs_f64() / 1e9;
            println!(
                "all_reduce of {bytes} bytes: median {median:.1?}, {bandwidth:.1} GB/s, first {:.1?}",
                times[24]
            );
        }
    }
    Ok(())
}

/// Groups whose second rank never comes.
fn check_ends(checks: &mut Checks, nccl: &Nccl, gpu: &Cuda, largest: usize) -> Result<(), Failure> {
    let options = Options { join_deadline: Duration::from_secs(2), ..Options::new(0, 2) };
    let began = Instant::now();
    let error = Communicator::join(nccl, UniqueId::new(nccl)?, gpu, &options).map(|_| ());
    let holds = matches!(error, Err(Error::NotJoined { .. }));
    checks.check(&format!("a rank that never comes ends the joining after {:.1?}", began.elapsed()), holds);

    let joining = Joining::begin(nccl, UniqueId::new(nccl)?, gpu, &Options::new(0, 2))?;
    let aborter = joining.aborter();
    let began = Instant::now();
    let (error, let_go) = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || joining.finish().map(|_| ()));
        let let_go = aborter.abort("a check");
        (waiting.join(), let_go)
    });
    let holds = let_go && matches!(error, Ok(Err(Error::Aborted { .. })));
    checks.check(&format!("an abort ends the joining after {:.1?}", began.elapsed()), holds);

    let mut group = Communicator::join(nccl, UniqueId::new(nccl)?, gpu, &Options::new(0, 1))?;
    let mut buffer = group.upload(&vec![1.0_f32; largest / 4])?;
    let pending =
        (0..20).map(|_| group.all_reduce(&mut buffer, Reduction::Sum)).collect::<Result<Vec<_>, _>>()?;
    let let_go = group.aborter().abort("another check");
    let aborted = pending.into_iter().map(muster_nccl::Pending::wait);
    let aborted = aborted.filter(|result| matches!(result, Err(Error::Aborted { .. }))).count();
    checks.check(&format!("an abort ends {aborted} of 20 calls under way"), let_go && aborted > 0);
    checks
        .check("a failed group can be read from", group.download(&buffer)?[0].to_bits() == 1.0_f32.to_bits());
    Ok(())
}
