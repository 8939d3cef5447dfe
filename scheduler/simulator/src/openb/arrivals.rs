//! Who arrives, and in what order.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::openb::{Pod, Trace};

/// The pods of the trace in random order, cut or topped up with random ones of them until they ask for
/// `load` times the GPUs there are.
pub fn arrivals(trace: &Trace, load: f64, seed: u64) -> Vec<&Pod> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pods: Vec<&Pod> = trace.pods.iter().collect();
    pods.shuffle(&mut random);
    let target = (trace.capacity() as f64 * load) as u64;
    let mut asked: u64 = pods.iter().map(|pod| u64::from(pod.want.gpu.thousandths())).sum();
    if trace.pods.iter().all(|pod| pod.want.gpu.thousandths() == 0) {
        return pods;
    }
    while asked < target {
        let Some(pod) = trace.pods.choose(&mut random) else { break };
        asked += u64::from(pod.want.gpu.thousandths());
        pods.push(pod);
    }
    while asked > target {
        let Some(pod) = pods.pop() else { break };
        asked -= u64::from(pod.want.gpu.thousandths());
    }
    pods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openb::{machines, pods};

    #[test]
    fn arrivals_ask_for_the_load_and_depend_on_the_seed_only() {
        let mut trace =
            machines("sn,cpu_milli,memory_mib,gpu,model\nn,64000,262144,8,G2\n".as_bytes()).unwrap();
        let list = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,1,500\nb,1,1,1,1000\nc,1,1,0,0\n";
        trace.pods = pods(list.as_bytes(), &trace.models).unwrap();
        let names =
            |load, seed| arrivals(&trace, load, seed).iter().map(|pod| pod.name.clone()).collect::<Vec<_>>();
        let asked = |load, seed| {
            arrivals(&trace, load, seed).iter().map(|pod| pod.want.gpu.thousandths()).sum::<u32>()
        };
        assert!((9_400..=10_400).contains(&asked(1.3, 1)), "{}", asked(1.3, 1));
        assert!(asked(0.1, 1) <= 800);
        assert_eq!(names(1.3, 7), names(1.3, 7));
        assert_ne!(names(1.3, 7), names(1.3, 8));
    }
}
