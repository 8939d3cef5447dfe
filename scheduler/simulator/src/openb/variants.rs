//! The paper's other traces, made from the default one by its recipe.

use muster_scheduler_core::GpuDemand;
use muster_scheduler_core::fragmentation::{ClassSet, Free};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::openb::{Pod, Trace};

/// What a variant has more or less of, in per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As recorded.
    Default,
    /// So many thousandths of all pods want no GPU.
    ProcessorOnly(u32),
    /// So much of the GPU demand is for shares of a GPU.
    Sharing(u32),
    /// So much of the GPU demand is of pods with several GPUs.
    SeveralGpus(u32),
    /// So many of the GPU pods name a GPU model.
    Models(u32),
}

/// All traces of the benchmark by name.
pub const VARIANTS: [(&str, Variant); 17] = [
    ("default", Variant::Default),
    ("cpu050", Variant::ProcessorOnly(50)),
    ("cpu100", Variant::ProcessorOnly(100)),
    ("cpu200", Variant::ProcessorOnly(200)),
    ("cpu250", Variant::ProcessorOnly(250)),
    ("gpushare40", Variant::Sharing(40)),
    ("gpushare60", Variant::Sharing(60)),
    ("gpushare80", Variant::Sharing(80)),
    ("gpushare100", Variant::Sharing(100)),
    ("multigpu20", Variant::SeveralGpus(20)),
    ("multigpu30", Variant::SeveralGpus(30)),
    ("multigpu40", Variant::SeveralGpus(40)),
    ("multigpu50", Variant::SeveralGpus(50)),
    ("gpuspec10", Variant::Models(10)),
    ("gpuspec20", Variant::Models(20)),
    ("gpuspec25", Variant::Models(25)),
    ("gpuspec33", Variant::Models(33)),
];

fn demand(pods: &[&Pod]) -> f64 {
    pods.iter().map(|pod| f64::from(pod.want.gpu.thousandths())).sum()
}

fn sample(pods: &[&Pod], count: usize, random: &mut StdRng) -> Vec<Pod> {
    (0..count).filter_map(|_| pods.choose(random)).map(|pod| (*pod).clone()).collect()
}

/// Pods in the proportions of the variant, sampled from `trace`.
pub fn variant(trace: &Trace, variant: Variant, seed: u64) -> Vec<Pod> {
    let mut random = StdRng::seed_from_u64(seed);
    let (plain, gpu): (Vec<&Pod>, Vec<&Pod>) =
        trace.pods.iter().partition(|pod| pod.want.gpu == GpuDemand::None);
    let cloned = |pods: &[&Pod]| pods.iter().map(|pod| (*pod).clone()).collect::<Vec<Pod>>();
    match variant {
        Variant::Default => trace.pods.clone(),
        Variant::ProcessorOnly(thousandths) => {
            let share = f64::from(thousandths) / 1000.0;
            let count = (gpu.len() as f64 * share / (1.0 - share)).round() as usize;
            let mut pods = cloned(&gpu);
            pods.extend(sample(&plain, count, &mut random));
            pods
        }
        Variant::Sharing(per_cent) => {
            let (shares, whole): (Vec<&Pod>, Vec<&Pod>) =
                gpu.iter().copied().partition(|pod| matches!(pod.want.gpu, GpuDemand::Share(_)));
            let part = f64::from(per_cent) / 100.0;
            let mean = |pods: &[&Pod]| demand(pods) / pods.len().max(1) as f64;
            let weights = (part / mean(&shares), (1.0 - part) / mean(&whole));
            let sharing = (gpu.len() as f64 * weights.0 / (weights.0 + weights.1)).round() as usize;
            let mut pods = cloned(&plain);
            pods.extend(sample(&shares, sharing, &mut random));
            pods.extend(sample(&whole, gpu.len() - sharing, &mut random));
            pods
        }
        Variant::SeveralGpus(per_cent) => {
            let several = |pod: &&Pod| matches!(pod.want.gpu, GpuDemand::Whole(count) if count > 1);
            let (several, single): (Vec<&Pod>, Vec<&Pod>) = gpu.iter().copied().partition(several);
            let part = f64::from(per_cent) / 100.0;
            let missing = demand(&single) * part / (1.0 - part);
            let count = (missing * several.len() as f64 / demand(&several).max(1.0)).round() as usize;
            let mut pods = cloned(&plain);
            pods.extend(cloned(&single));
            pods.extend(sample(&several, count, &mut random));
            pods
        }
        Variant::Models(per_cent) => {
            let mut pods = trace.pods.clone();
            for pod in pods.iter_mut().filter(|pod| pod.want.gpu != GpuDemand::None) {
                if random.random_ratio(per_cent, 100) {
                    // The model of a node, any with the same chance, that holds the pod when empty.
                    let models: Vec<usize> = trace
                        .machines
                        .iter()
                        .filter(|machine| {
                            let devices = vec![1000; machine.devices];
                            Free { class: machine.model, host: machine.host, devices: &devices }
                                .holds(&pod.want)
                        })
                        .map(|machine| machine.model)
                        .collect();
                    pod.want.classes =
                        models.choose(&mut random).map_or(ClassSet::ALL, |model| ClassSet::of([*model]));
                }
            }
            pods
        }
    }
}
