//! Small clusters, queues and jobs by chance.

use rand::RngExt;
use rand::rngs::StdRng;

/// GPUs of a node.
pub(super) const GPUS: u32 = 8;
/// Nodes of a rack.
pub(super) const PER_RACK: usize = 2;

/// One job; times in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) pods: u32,
    /// Of each pod.
    pub(super) gpus: u32,
    pub(super) runs: i64,
    /// After the job before.
    pub(super) pause: i64,
    /// Index of its queue.
    pub(super) queue: usize,
    /// All pods in one rack.
    pub(super) in_rack: bool,
}

impl Asked {
    pub(super) fn all_gpus(&self) -> i64 {
        i64::from(self.pods * self.gpus)
    }
}

/// Quota of a queue, in GPUs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) nominal: i64,
    pub(super) borrows_at_most: Option<i64>,
    pub(super) lends_at_most: Option<i64>,
}

impl Share {
    pub(super) fn lends(&self) -> i64 {
        self.lends_at_most.unwrap_or(self.nominal).min(self.nominal)
    }
}

/// Everything that is given.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) nodes: usize,
    pub(super) queues: Vec<Share>,
    pub(super) jobs: Vec<Asked>,
    pub(super) policy: &'static str,
    /// Whole nodes only, so that nothing depends on which node is chosen.
    pub(super) whole: bool,
}

impl Scenario {
    pub(super) fn random(random: &mut StdRng) -> Self {
        const POLICIES: [&str; 4] = ["strict-fifo", "best-effort-fifo", "easy", "muster"];
        let queues: Vec<Share> = (0..random.random_range(1..4))
            .map(|_| Share {
                nominal: random.random_range(1..5) * 8,
                borrows_at_most: random.random_bool(0.5).then(|| random.random_range(0..4) * 8),
                lends_at_most: random.random_bool(0.5).then(|| random.random_range(0..2) * 8),
            })
            .collect();
        let whole = random.random_bool(0.5);
        let jobs = (0..random.random_range(2..12))
            .map(|_| Asked {
                pods: random.random_range(1..6),
                gpus: if whole { GPUS } else { [2, 4, 8][random.random_range(0..3)] },
                runs: random.random_range(1..60),
                pause: random.random_range(0..12),
                queue: random.random_range(0..queues.len()),
                in_rack: !whole && random.random_bool(0.5),
            })
            .collect();
        Self {
            nodes: random.random_range(2..6),
            jobs,
            queues,
            policy: POLICIES[random.random_range(0..POLICIES.len())],
            whole,
        }
    }

    /// Whether a count of whole nodes tells when jobs start.
    pub(super) fn can_be_counted(&self) -> bool {
        self.whole && self.policy.ends_with("fifo")
    }
}
