//! Times all-reduce and prints a table in the form of nccl-tests: `algbw` is the size of the buffer over the time,
//! `busbw` is `algbw · 2(n-1)/n`.
//!
//! Every rank is a process that calls [`measure`]. A time is the median over the repetitions of the slowest rank's
//! time, from a barrier on. On one host the bound is the time in which the ranks together read and write every byte of
//! their buffers once, which no all-reduce in place can do without; it is measured on the same memory in the same run.
//! Between hosts it is the time in which plain TCP connections between the same processes, which write and read at
//! once, move as many bytes as every rank must send and receive.

mod line;

use std::fmt::Write;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::communicator::Communicator;
use crate::element::Reduction;
use crate::error::Error;
use crate::options::Options;
use line::Line;

/// Repetitions that count for nothing: caches and branch predictors learn in them.
const WARM_UP: usize = 3;

/// How one way to reduce went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Median time in seconds.
    pub seconds: f64,
    /// Elements of the results of all ranks that are not what they must be.
    pub wrong: usize,
}

/// What was measured of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Bytes of the buffer of each rank.
    pub bytes: usize,
    /// Reduced through the staging slots, from and to private memory.
    pub staged: Timing,
    /// Reduced where it lies.
    pub registered: Timing,
    /// Seconds in which the memory lets every byte be read and written once, or between hosts the network moves what
    /// must cross it.
    pub bound: f64,
}

/// The sizes from `smallest` to `largest` bytes, each `factor` times the one before.
pub fn sizes(smallest: usize, largest: usize, factor: usize) -> Vec<usize> {
    let next = |bytes: &usize| bytes.checked_mul(factor.max(2));
    std::iter::successors(Some(smallest.max(size_of::<f32>())), next)
        .take_while(|bytes| *bytes <= largest)
        .collect()
}

/// One rank's part of the measurement: sums of `f32` in place, one row a size. All ranks get the same rows.
pub fn measure(options: &Options, sizes: &[usize]) -> Result<Vec<Row>, Error> {
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let mut group = Communicator::connect(&Options { arena_bytes: largest, ..options.clone() })?;
    let mut line = Line::connect(&mut group)?;
    sizes.iter().map(|bytes| measure_size(&mut group, line.as_mut(), *bytes)).collect()
}

fn measure_size(group: &mut Communicator, mut line: Option<&mut Line>, bytes: usize) -> Result<Row, Error> {
    let count = bytes / size_of::<f32>();
    let repetitions = ((64 << 20) / bytes.max(1)).clamp(9, 1001);
    let rank = group.rank();
    let mut registered_buffer = group.allocate::<f32>(count)?;
    let bound_repetitions = if line.is_some() { repetitions.min(101) } else { repetitions };
    let bound = median(group, bound_repetitions, |_| {
        if let Some(line) = &mut line {
            return line.carry(bytes);
        }
        registered_buffer.touch();
        Ok(())
    })?;
    fill(&mut registered_buffer, rank + 1);
    group.all_reduce(&mut registered_buffer, Reduction::Sum)?;
    let wrong = count_wrong(group, &registered_buffer)?;
    // Zeros stay zeros, however often they are added.
    registered_buffer.fill(0.0);
    let seconds =
        median(group, repetitions, |group| group.all_reduce(&mut registered_buffer, Reduction::Sum))?;
    let registered = Timing { seconds, wrong };

    let mut data = vec![0_f32; count];
    fill(&mut data, rank + 1);
    group.all_reduce_staged(&mut data, Reduction::Sum)?;
    let wrong = count_wrong(group, &data)?;
    data.fill(0.0);
    let seconds = median(group, repetitions, |group| group.all_reduce_staged(&mut data, Reduction::Sum))?;
    Ok(Row { bytes, staged: Timing { seconds, wrong }, registered, bound })
}

/// Fills in small integers times `factor`: their sums are exact in any order.
pub fn fill(data: &mut [f32], factor: usize) {
    data.iter_mut().enumerate().for_each(|(index, value)| *value = (factor * (index % 61 + 1)) as f32);
}

/// Elements, on all ranks together, that are not the sum of what [`fill`] gives with rank + 1 as the factor.
pub fn count_wrong(group: &mut Communicator, data: &[f32]) -> Result<usize, Error> {
    let world_size = group.world_size();
    let mut expected = vec![0.0; data.len()];
    fill(&mut expected, world_size * (world_size + 1) / 2);
    let mut wrong = [data
        .iter()
        .zip(&expected)
        .filter(|(value, expected)| value.to_bits() != expected.to_bits())
        .count() as i64];
    group.all_reduce_staged(&mut wrong, Reduction::Sum)?;
    Ok(wrong[0] as usize)
}

/// Starts each rank on a processor of its own where there are enough, and then lets the system move it: busy machines
/// tend to keep processes that wake each other on one.
fn spread(rank: usize) -> std::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut own = CpuSet::new();
    own.set(processors[rank % processors.len()]);
    sched_setaffinity(None, &own)?;
    Ok(sched_setaffinity(None, &allowed)?)
}

fn median(
    group: &mut Communicator,
    repetitions: usize,
    work: impl FnMut(&mut Communicator) -> Result<(), Error>,
) -> Result<f64, Error> {
    spread(group.rank()).map_err(Error::system("start a rank on a processor of its own"))?;
    median_of_slowest(group, WARM_UP, repetitions, work)
}

/// The median over the repetitions of the slowest rank's time in seconds, from a barrier on; those of `warm_up` come first
/// and count for nothing. All ranks get the same.
pub fn median_of_slowest<E: From<Error>>(
    group: &mut Communicator,
    warm_up: usize,
    repetitions: usize,
    mut work: impl FnMut(&mut Communicator) -> Result<(), E>,
) -> Result<f64, E> {
    let mut times = Vec::with_capacity(repetitions);
    for repetition in 0..warm_up + repetitions {
        group.barrier()?;
        let began = Instant::now();
        work(group)?;
        if repetition >= warm_up {
            times.push(began.elapsed().as_secs_f64());
        }
    }
    group.all_reduce_staged(&mut times, Reduction::Maximum)?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// The rows as nccl-tests prints them, with the bound as a last column; `between` says what the ranks share.
pub fn table(rows: &[Row], world_size: usize, between: &str) -> String {
    let mut text = format!(
        "# {world_size} ranks {between}, in place\n\
         #{:58}{:^34}{:^34}\n\
         # {:>12} {:>13} {:>9} {:>8} {:>8} {:>10} {:>7} {:>7} {:>6}  {:>10} {:>7} {:>7} {:>6} {:>10}\n\
         # {:>12} {:>13} {:>9} {:>8} {:>8} {:>10} {:>7} {:>7} {:>6}  {:>10} {:>7} {:>7} {:>6} {:>10}\n",
        "",
        "staged",
        "registered",
        "size",
        "count",
        "type",
        "redop",
        "root",
        "time",
        "algbw",
        "busbw",
        "#wrong",
        "time",
        "algbw",
        "busbw",
        "#wrong",
        "bound",
        "(B)",
        "(elements)",
        "",
        "",
        "",
        "(us)",
        "(GB/s)",
        "(GB/s)",
        "",
        "(us)",
        "(GB/s)",
        "(GB/s)",
        "",
        "(us)"
    );
    for row in rows {
        let columns = |timing: Timing| timing.columns(row.bytes, world_size);
        let (staged, registered) = (columns(row.staged), columns(row.registered));
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{} {staged}  {registered} {:>10.2}", call_columns(row.bytes), row.bound * 1e6);
    }
    let wrong: usize = rows.iter().map(|row| row.staged.wrong + row.registered.wrong).sum();
    text + &verdict(wrong)
}

/// The columns of nccl-tests' table that say what was called.
pub fn call_columns(bytes: usize) -> String {
    let count = bytes / size_of::<f32>();
    format!("  {bytes:>12} {count:>13} {:>9} {:>8} {:>8}", "float", "sum", -1)
}

/// The last line of nccl-tests' table.
pub fn verdict(wrong: usize) -> String {
    format!("# Out of bounds values : {wrong} {}\n", if wrong == 0 { "OK" } else { "FAILED" })
}

impl Timing {
    /// The columns of nccl-tests' table that say how it went: µs, GB/s of the buffer and of the bus, wrong elements.
    pub fn columns(self, bytes: usize, world_size: usize) -> String {
        let bandwidth = bytes as f64 / self.seconds / 1e9;
        let bus = bandwidth * 2.0 * (world_size as f64 - 1.0) / world_size as f64;
        format!("{:>10.2} {bandwidth:>7.2} {bus:>7.2} {:>6}", self.seconds * 1e6, self.wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::NetworkOptions;

    #[test]
    fn sizes_grow_by_the_factor_up_to_the_largest() {
        assert_eq!(sizes(1024, 20_000, 4), [1024, 4096, 16_384]);
        assert_eq!(sizes(0, 16, 2), [4, 8, 16]);
        assert_eq!(sizes(64, 32, 2), [0_usize; 0]);
    }

    #[test]
    fn a_row_has_the_columns_of_nccl_tests_and_the_bound() {
        let timing = |seconds, wrong| Timing { seconds, wrong };
        let row = Row { bytes: 1 << 20, staged: timing(2e-4, 0), registered: timing(1e-4, 3), bound: 8e-5 };
        let text = table(&[row], 4, "on one host over shared memory");
        let words: Vec<_> =
            text.lines().find(|line| !line.starts_with('#')).unwrap().split_whitespace().collect();
        assert_eq!(
            words,
            [
                "1048576", "262144", "float", "sum", "-1", "200.00", "5.24", "7.86", "0", "100.00", "10.49",
                "15.73", "3", "80.00"
            ]
        );
        assert!(text.ends_with("values : 3 FAILED\n"), "{text}");
    }

    #[test]
    fn every_rank_measures_the_same_rows_and_finds_nothing_wrong() {
        let directory = tempfile::tempdir().unwrap();
        check_rows(|rank| Options::new(directory.path(), "bench", rank, 3));
    }

    #[test]
    fn every_host_measures_the_same_rows_and_finds_nothing_wrong() {
        let directory = tempfile::tempdir().unwrap();
        // No other process has this number, and so none this address.
        let [_, first, second, third] = (std::process::id() << 1 | 1).to_be_bytes();
        let address = format!("127.{first}.{second}.{third}:29500");
        check_rows(|rank| {
            let own = directory.path().join(rank.min(1).to_string());
            std::fs::create_dir_all(&own).unwrap();
            let silence = std::time::Duration::from_secs(20);
            let network = Some(NetworkOptions { silence, ..NetworkOptions::new(&address) });
            Options { network, ..Options::new(own, "bench", rank, 3) }
        });
    }

    fn check_rows(options: impl Fn(usize) -> Options) {
        let rows: Vec<_> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..3)
                .map(|rank| {
                    let options = options(rank);
                    scope.spawn(move || measure(&options, &[4, 1000, 300_000]).unwrap())
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert_eq!(rows[0], rows[1]);
        assert_eq!(rows[0], rows[2]);
        let wrong = |row: &Row| row.staged.wrong + row.registered.wrong;
        assert_eq!(rows[0].iter().map(wrong).sum::<usize>(), 0);
    }
}
