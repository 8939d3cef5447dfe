//! The measurement between GPUs.

use muster_collectives::{Communicator as Host, Options};
use muster_nccl::{Communicator, Cuda, Nccl, benchmark, detect};

use crate::error::{Error, USAGE};

/// As many ranks as are asked for, or a rank a GPU.
pub(super) fn ranks(asked: Option<usize>) -> Result<usize, Error> {
    let (driver, _) =
        detect().map_err(|missing| Error::from_source("cannot measure between GPUs", &missing))?;
    one_a_gpu(asked, driver.devices)
}

fn one_a_gpu(asked: Option<usize>, gpus: usize) -> Result<usize, Error> {
    match asked {
        Some(ranks) if ranks > gpus => {
            let message = format!("{ranks} ranks need as many GPUs, and there are {gpus}");
            Err(Error::new(message).with_hint(format!("--ranks {gpus}")).with_code(USAGE))
        }
        asked => Ok(asked.unwrap_or(gpus)),
    }
}

/// One rank's part; the table that rank 0 prints.
pub(super) fn measure(options: &Options, sizes: &[usize]) -> Result<String, muster_nccl::Error> {
    let mut host = Host::connect(options)?;
    let nccl = Nccl::load()?;
    let gpu = Cuda::open(options.rank)?;
    let place = muster_nccl::Options::new(options.rank, options.world_size);
    let mut group = Communicator::join_through(&nccl, &mut host, &gpu, &place)?;
    let rows = benchmark::measure(&mut group, &mut host, sizes)?;
    group.close()?;
    Ok(benchmark::table(&rows, options.world_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_has_a_gpu() {
        assert_eq!(one_a_gpu(None, 8).ok(), Some(8));
        assert_eq!(one_a_gpu(Some(2), 8).ok(), Some(2));
        let refused = one_a_gpu(Some(4), 1).unwrap_err();
        assert_eq!(refused.message(), "4 ranks need as many GPUs, and there are 1");
        assert_eq!(refused.hint(), Some("--ranks 1"));
    }
}
