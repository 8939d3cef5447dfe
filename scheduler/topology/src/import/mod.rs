//! Topologies from what others write down: node labels, Kueue's and KAI's `Topology`, Volcano's `HyperNode`, Slurm's
//! `topology.conf`; and the inside of nodes from `nvidia-smi topo -m`, `NodeResourceTopology` and `ResourceSlice`.

pub mod dra;
mod field;
mod hostlist;
pub mod hypernode;
mod inside;
pub mod kueue;
pub mod labels;
pub mod nrt;
pub mod nvidia_smi;
pub mod slurm;
mod source;

pub use field::FieldError;
pub use hostlist::{HostlistError, expand as expand_hostlist};
pub use inside::{Inside, Insides};
pub use source::{Source, SourceError, SourceNode, TopologySources};
