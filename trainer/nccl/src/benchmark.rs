//! Times all-reduce between GPUs and prints nccl-tests' table: `algbw` is the size of the buffer over the time, `busbw`
//! is `algbw · 2(n-1)/n`.
//!
//! A time is the median over the repetitions of the slowest rank's time from a barrier of the processes until its wait
//! for the call has ended: what a program sees that makes one call at a time.

use std::fmt::Write;

use muster_collectives::benchmark::{self, Timing};
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
    let mut values = vec![0.0; bytes / size_of::<f32>()];
    benchmark::fill(&mut values, group.rank() + 1);
    let mut buffer = group.upload(&values)?;
    group.all_reduce(&mut buffer, Reduction::Sum)?.wait()?;
    let wrong = benchmark::count_wrong(host, &group.download(&buffer)?)?;
    // Zeros stay zeros, however often they are added.
    values.fill(0.0);
    group.write(&values, &mut buffer)?;
    let repetitions = ((1 << 30) / bytes.max(1)).clamp(9, 201);
    let seconds = benchmark::median_of_slowest(host, WARM_UP, repetitions, |_| {
        group.all_reduce(&mut buffer, Reduction::Sum)?.wait()
    })?;
    Ok(Row { bytes, seconds, wrong })
}

/// The rows as nccl-tests prints them.
pub fn table(rows: &[Row], ranks: usize) -> String {
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
        let timing = Timing { seconds: *seconds, wrong: *wrong };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {}", benchmark::call_columns(*bytes), timing.columns(*bytes, ranks));
    }
    text + &benchmark::verdict(rows.iter().map(|row| row.wrong).sum())
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
