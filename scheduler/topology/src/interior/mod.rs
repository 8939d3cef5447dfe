//! Inside a node: how its GPUs are linked with each other, with CPUs and with network cards.

mod accelerator;
mod choose;
mod gpu_set;
mod ring;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{Hash, Hasher};

pub use accelerator::Accelerator;
pub use gpu_set::GpuSet;
use thiserror::Error;

/// The widest node that is understood.
pub const MAX_GPUS: usize = 64;

/// The best path between two devices of a node, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// So many NVLinks; behind a switch, as many as the GPU has.
    NvLink(u16),
    /// At most one PCIe bridge.
    Pix,
    /// Several PCIe bridges, but no host bridge.
    Pxb,
    /// A PCIe host bridge, as a rule the CPU.
    Phb,
    /// Between host bridges of one NUMA node.
    Node,
    /// Between NUMA nodes.
    Sys,
}

impl LinkKind {
    /// 0 for NVLink to 5 for the path between sockets.
    const fn class(self) -> usize {
        match self {
            Self::NvLink(_) => 0,
            Self::Pix => 1,
            Self::Pxb => 2,
            Self::Phb => 3,
            Self::Node => 4,
            Self::Sys => 5,
        }
    }
}

/// How many classes of paths there are.
const CLASSES: usize = 6;

/// A network card of the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nic {
    /// Its name, such as `mlx5_0`.
    pub name: String,
    /// The path from each GPU.
    pub paths: Vec<LinkKind>,
}

/// Why there is no interior.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InteriorError {
    /// More GPUs than are understood.
    #[error("{found} GPUs in one node are more than the {MAX_GPUS} that are understood")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// A table of another size than the GPUs need.
    #[error("{table} has {found} entries where {expected} GPUs need {needed}")]
    Size {
        /// Which table.
        table: &'static str,
        /// Its entries.
        found: usize,
        /// How many GPUs.
        expected: usize,
        /// How many entries they need.
        needed: usize,
    },
    /// The path from one GPU to another differs from the path back.
    #[error("the path from GPU {from} to GPU {to} differs from the path back")]
    Asymmetric {
        /// One GPU.
        from: usize,
        /// The other.
        to: usize,
    },
}

impl fmt::Display for LinkKind {
    /// As `nvidia-smi topo -m` writes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NvLink(links) => write!(formatter, "NV{links}"),
            Self::Pix => formatter.write_str("PIX"),
            Self::Pxb => formatter.write_str("PXB"),
            Self::Phb => formatter.write_str("PHB"),
            Self::Node => formatter.write_str("NODE"),
            Self::Sys => formatter.write_str("SYS"),
        }
    }
}

/// The GPUs of a node and their links.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeInterior {
    accelerator: Accelerator,
    count: usize,
    /// Row by row; the diagonal is of no meaning.
    links: Vec<LinkKind>,
    numa: Vec<Option<u16>>,
    nics: Vec<Nic>,
    /// MB/s per direction, row by row, 0 on the diagonal.
    bandwidths: Vec<u32>,
    /// 1 for a common NUMA node and 2 for a common nearest network card, row by row.
    affinities: Vec<u32>,
    /// Per class of paths, per GPU: the GPUs it reaches by a path of that class or a nearer one.
    reach: Vec<[GpuSet; CLASSES]>,
    uniform: bool,
}

impl NodeInterior {
    /// `links` holds the path between every two GPUs, row by row.
    pub fn new(
        accelerator: Accelerator,
        links: Vec<LinkKind>,
        numa: Vec<Option<u16>>,
        nics: Vec<Nic>,
    ) -> Result<Self, InteriorError> {
        let count = numa.len();
        if count > MAX_GPUS {
            return Err(InteriorError::TooMany { found: count });
        }
        let size = |table, found, needed| {
            if found == needed {
                Ok(())
            } else {
                Err(InteriorError::Size { table, found, expected: count, needed })
            }
        };
        size("the table of paths", links.len(), count * count)?;
        nics.iter()
            .try_for_each(|nic| size("the table of paths to a network card", nic.paths.len(), count))?;
        let pairs = || (0..count).flat_map(|from| (0..from).map(move |to| (from, to)));
        if let Some((from, to)) = pairs().find(|(a, b)| links[a * count + b] != links[b * count + a]) {
            return Err(InteriorError::Asymmetric { from: to, to: from });
        }
        let mut interior = Self {
            bandwidths: vec![0; count * count],
            affinities: vec![0; count * count],
            reach: vec![[GpuSet::EMPTY; CLASSES]; count],
            uniform: true,
            accelerator,
            count,
            links,
            numa,
            nics,
        };
        interior.fill();
        Ok(interior)
    }

    /// GPUs that all see each other alike: through an NVLink switch where the accelerator has NVLink, else over
    /// PCIe; half of them at each of two sockets when there are more than four.
    pub fn standard(accelerator: Accelerator, gpus: usize) -> Self {
        let gpus = gpus.min(MAX_GPUS);
        let socket = |gpu: usize| if gpus > 4 { gpu / gpus.div_ceil(2) } else { 0 };
        let path = |a: usize, b: usize| match accelerator.nvlinks {
            0 if socket(a) == socket(b) => LinkKind::Node,
            0 => LinkKind::Sys,
            links => LinkKind::NvLink(links),
        };
        Self::symmetric(accelerator, (0..gpus).map(|gpu| Some(socket(gpu) as u16)).collect(), path)
    }

    /// GPUs in these NUMA nodes, with paths that are the same in both directions; no more than are understood.
    pub(crate) fn symmetric(
        accelerator: Accelerator,
        numa: Vec<Option<u16>>,
        path: impl Fn(usize, usize) -> LinkKind,
    ) -> Self {
        let count = numa.len();
        let links = (0..count * count).map(|pair| path(pair / count, pair % count)).collect();
        let mut interior = Self {
            bandwidths: vec![0; count * count],
            affinities: vec![0; count * count],
            reach: vec![[GpuSet::EMPTY; CLASSES]; count],
            uniform: true,
            accelerator,
            count,
            links,
            numa,
            nics: Vec::new(),
        };
        interior.fill();
        interior
    }

    fn fill(&mut self) {
        let nearest: Vec<Option<usize>> = (0..self.count).map(|gpu| self.nearest_nic(gpu)).collect();
        for a in 0..self.count {
            for b in (0..self.count).filter(|b| *b != a) {
                let kind = self.links[a * self.count + b];
                self.bandwidths[a * self.count + b] = self.accelerator.megabytes(kind);
                let numa = self.numa[a].is_some() && self.numa[a] == self.numa[b];
                let nic = nearest[a].is_some() && nearest[a] == nearest[b];
                self.affinities[a * self.count + b] = u32::from(numa) + 2 * u32::from(nic);
                for class in kind.class()..CLASSES {
                    self.reach[a][class] = self.reach[a][class].with(b);
                }
            }
        }
        self.uniform = alike(&self.bandwidths, self.count) && alike(&self.affinities, self.count);
    }

    /// The network card with the shortest path from a GPU, the first of equals.
    pub fn nearest_nic(&self, gpu: usize) -> Option<usize> {
        (0..self.nics.len()).min_by_key(|nic| (self.nics[*nic].paths.get(gpu).copied(), *nic))
    }

    /// How many GPUs there are.
    pub fn gpu_count(&self) -> usize {
        self.count
    }

    /// Which accelerator they are.
    pub fn accelerator(&self) -> &Accelerator {
        &self.accelerator
    }

    /// Whether it makes no difference which of the GPUs one takes.
    pub fn is_uniform(&self) -> bool {
        self.uniform
    }

    /// GB/s per direction over a path.
    pub fn bandwidth(&self, kind: LinkKind) -> f64 {
        f64::from(self.accelerator.megabytes(kind)) / 1000.0
    }

    /// The path between two GPUs, none for the same GPU or one that does not exist.
    pub fn link(&self, a: usize, b: usize) -> Option<LinkKind> {
        (a != b && a < self.count && b < self.count).then(|| self.links[a * self.count + b])
    }

    /// The NUMA node of a GPU, where known.
    pub fn numa(&self, gpu: usize) -> Option<u16> {
        self.numa.get(gpu).copied().flatten()
    }

    /// The network cards.
    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// GB/s per direction between the two GPUs that are linked best, 0 without a pair.
    pub(crate) fn widest_path(&self) -> f64 {
        f64::from(self.bandwidths.iter().copied().max().unwrap_or(0)) / 1000.0
    }

    /// MB/s per direction between two different GPUs that exist.
    fn megabytes(&self, a: usize, b: usize) -> u32 {
        self.bandwidths[a * self.count + b]
    }
}

// Bandwidths are finite.
impl Eq for NodeInterior {}

impl Hash for NodeInterior {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.links, &self.numa, &self.nics).hash(state);
    }
}

/// Whether all entries off the diagonal of a square table are the same.
fn alike(table: &[u32], width: usize) -> bool {
    let mut pairs = (0..table.len()).filter(|index| index / width != index % width).map(|index| table[index]);
    let first = pairs.next();
    pairs.all(|other| Some(other) == first)
}
