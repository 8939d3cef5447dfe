//! Times all-reduce between GPUs and prints nccl-tests' table: `algbw` is the size of the buffer over the time, `busbw`
//! is `algbw · 2(n-1)/n`.
//!
//! A time is the median over the repetitions of the slowest rank's time from a barrier of the processes until its wait
//! for the call has ended: what a program sees that makes one call at a time.

use std::fmt::Write;
use std::time::Instant;

use muster_collectives::{Communicator as Host, Reduction};

use crate::communicator::Communicator;
use crate::error::Error;
use crate::queue::Queue;

/// Repetitions that count for nothing: NCCL makes its connections in them.
const WARM_UP: usize = 5;

/// What was measured of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Bytes of the buffer of each rank.
    pub bytes: usize,
    /// Median time in seconds.
    pub seconds: f64,
    /// Elements of the results of all ranks that are not what they must be.
    pub wrong: usize,
}

/// One rank's part of the measurement: sums of `f32` in place, one row a size. `host` has the same ranks. All ranks get
/// the same rows.
pub fn measure<Q: Queue>(
    group: &mut Communicator<Q>,
    host: &mut Host,
    sizes: &[usize],
) -> Result<Vec<Row>, Error> {
    sizes.iter().map(|bytes| measure_size(group, host, *bytes)).collect()
}

fn measure_size<Q: Queue>(group: &mut Communicator<Q>, host: &mut Host, bytes: usize) -> Result<Row, Error> {
    let count = bytes / size_of::<f32>();
    let (rank, ranks) = (group.rank(), group.world_size());
    let mut buffer = group.upload(&pattern(count, rank + 1))?;
    group.all_reduce(&mut buffer, Reduction::Sum)?.wait()?;
    let expected = pattern(count, ranks * (ranks + 1) / 2);
    let pairs = group.download(&buffer)?.into_iter().zip(expected);
    let mut wrong = [pairs.filter(|(value, expected)| value.to_bits() != expected.to_bits()).count() as i64];
    host.all_reduce_staged(&mut wrong, Reduction::Sum)?;
    // Zeros stay zeros, however often they are added.
    group.write(&vec![0.0; count], &mut buffer)?;
    let repetitions = ((1 << 30) / bytes.max(1)).clamp(9, 201);
    let mut times = Vec::with_capacity(repetitions);
    for repetition in 0..WARM_UP + repetitions {
        host.barrier()?;
        let began = Instant::now();
        group.all_reduce(&mut buffer, Reduction::Sum)?.wait()?;
        if repetition >= WARM_UP {
            times.push(began.elapsed().as_secs_f64());
        }
    }
    host.all_reduce_staged(&mut times, Reduction::Maximum)?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(Row { bytes, seconds: times[times.len() / 2], wrong: wrong[0] as usize })
}

/// Small integers, whose sums are exact in any order.
fn pattern(count: usize, factor: usize) -> Vec<f32> {
    (0..count).map(|index| (factor * (index % 61 + 1)) as f32).collect()
}

/// The rows as nccl-tests prints them.
pub fn table(rows: &[Row], ranks: usize) -> String {
    let bus_factor = 2.0 * (ranks as f64 - 1.0) / ranks as f64;
    let mut text = format!(
        "# {ranks} ranks, one a GPU, over NCCL, in place\n\
         # {:>12} {:>13} {:>9} {:>8} {:>8} {:>10} {:>7} {:>7} {:>6}\n\
         # {:>12} {:>13} {:>9} {:>8} {:>8} {:>10} {:>7} {:>7} {:>6}\n",
        "size",
        "count",
        "type",
        "redop",
        "root",
        "time",
        "algbw",
        "busbw",
        "#wrong",
        "(B)",
        "(elements)",
        "",
        "",
        "",
        "(us)",
        "(GB/s)",
        "(GB/s)",
        ""
    );
    for Row { bytes, seconds, wrong } in rows {
        let bandwidth = *bytes as f64 / seconds / 1e9;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {bytes:>12} {:>13} {:>9} {:>8} {:>8} {:>10.2} {bandwidth:>7.2} {:>7.2} {wrong:>6}",
            bytes / size_of::<f32>(),
            "float",
            "sum",
            -1,
            seconds * 1e6,
            bandwidth * bus_factor,
        );
    }
    let wrong: usize = rows.iter().map(|row| row.wrong).sum();
    let _ = writeln!(text, "# Out of bounds values : {wrong} {}", if wrong == 0 { "OK" } else { "FAILED" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_columns_of_nccl_tests() {
        let text = table(&[Row { bytes: 1 << 20, seconds: 1e-4, wrong: 3 }], 4);
        let words: Vec<_> =
            text.lines().find(|line| !line.starts_with('#')).unwrap().split_whitespace().collect();
        assert_eq!(words, ["1048576", "262144", "float", "sum", "-1", "100.00", "10.49", "15.73", "3"]);
        assert!(text.ends_with("values : 3 FAILED\n"), "{text}");
    }
}
