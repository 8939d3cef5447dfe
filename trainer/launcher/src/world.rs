//! Which ranks start here, from options and from the variables of a PyTorchJob's pod. Pure.
//!
//! Of a pod, `RANK` is the rank of the node and `WORLD_SIZE` the number of processes as the controller counts them:
//! pods times `nprocPerNode` where that is a number, else pods. torchrun and this launcher replace both for the workers.

use std::num::NonZeroUsize;

use crate::arguments::{PlaceArguments, WorkerCount};
use crate::variables::Variables;

/// torchrun's default.
const DEFAULT_PORT: u16 = 29500;
const DEFAULT_ADDRESS: &str = "127.0.0.1";

/// Options and variables describe no job.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Something else than expected.
    #[error("{name} is {value:?}, not {expected}")]
    Invalid {
        /// The variable or option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// Two variables that mean the same differ.
    #[error("{first} is {first_value:?} but {second} is {second_value:?}; {option} says which counts")]
    Disagreement {
        /// A variable.
        first: &'static str,
        /// Its value.
        first_value: String,
        /// Another variable.
        second: &'static str,
        /// Its value.
        second_value: String,
        /// The option that comes before both.
        option: &'static str,
    },
    /// `WORLD_SIZE` does not go with the number of nodes.
    #[error(
        "WORLD_SIZE is {world_size}, but {nodes} nodes of {per_node} processes are {}; --nnodes says how many nodes there are",
        nodes * per_node
    )]
    WorldSize {
        /// Its value.
        world_size: usize,
        /// What `PET_NNODES` says.
        nodes: usize,
        /// What `PET_NPROC_PER_NODE` says.
        per_node: usize,
    },
    /// A number of nodes that may change, and nowhere to meet.
    #[error(
        "{name} is {value:?}: the nodes of a job whose number changes meet at a rendezvous, and nothing says where it is: \
         set PET_RDZV_ENDPOINT, or pass --rdzv-endpoint"
    )]
    NoRendezvous {
        /// The variable or option.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Several nodes, and nothing says more.
    #[error("the job has {nodes} nodes, but nothing says {what}: set {variables}, or pass {option}{note}")]
    Missing {
        /// The number of nodes.
        nodes: usize,
        /// What is not known.
        what: &'static str,
        /// The variables that would say.
        variables: &'static str,
        /// The option that would say.
        option: &'static str,
        /// Why it may be missing.
        note: &'static str,
    },
    /// One worker a GPU, and no GPU.
    #[error("workers are one a GPU, but this pod was given no GPU; pass --nproc-per-node with a number")]
    NoGpu,
}

/// What a pod may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Processors, as affinity and the limits of the control group allow.
    pub(crate) processors: NonZeroUsize,
    pub(crate) gpus: usize,
}

/// The job as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) nodes: usize,
    /// Below `nodes`.
    pub(crate) node_rank: usize,
    /// Workers of each node.
    pub(crate) workers: NonZeroUsize,
    /// Host of rank 0.
    pub(crate) master_address: String,
    pub(crate) master_port: u16,
}

impl World {
    /// The rank in the whole job of the worker `local_rank`.
    pub(crate) fn rank(&self, local_rank: usize) -> usize {
        self.node_rank * self.workers.get() + local_rank
    }

    /// Workers of all nodes.
    pub(crate) fn size(&self) -> usize {
        self.nodes * self.workers.get()
    }

    /// Options come first, then `PET_*`, then what else a PyTorchJob sets.
    pub(crate) fn read(
        options: &PlaceArguments,
        variable: impl Fn(&str) -> Option<String>,
        resources: Resources,
    ) -> Result<Self, Error> {
        let variables = Variables(&variable);
        let job_count = job_count(&variables)?;
        let workers = workers(options, &variables, resources)?;
        // What the controller multiplied the pods with, whatever is started here.
        let per_node = match job_count {
            Some(WorkerCount::Number(number)) => number.get(),
            _ => 1,
        };
        let nodes = nodes(options, &variables, per_node)?;
        let node_rank = node_rank(options, &variables, nodes)?;
        let (master_address, master_port) = master(options, &variables, nodes)?;
        Ok(Self { nodes, node_rank, workers, master_address, master_port })
    }
}

fn job_count(variables: &Variables<'_>) -> Result<Option<WorkerCount>, Error> {
    variables.parsed("PET_NPROC_PER_NODE", "a number, auto, cpu or gpu")
}

/// How many workers this node has.
pub(crate) fn workers(
    options: &PlaceArguments,
    variables: &Variables<'_>,
    resources: Resources,
) -> Result<NonZeroUsize, Error> {
    let gpus = NonZeroUsize::new(resources.gpus);
    match options.nproc_per_node.or(job_count(variables)?) {
        None => Ok(NonZeroUsize::MIN),
        Some(WorkerCount::Number(number)) => Ok(number),
        Some(WorkerCount::Cpu) => Ok(resources.processors),
        Some(WorkerCount::Gpu) => gpus.ok_or(Error::NoGpu),
        Some(WorkerCount::Auto) => Ok(gpus.unwrap_or(resources.processors)),
    }
}

fn nodes(options: &PlaceArguments, variables: &Variables<'_>, per_node: usize) -> Result<usize, Error> {
    if let Some(text) = &options.nnodes {
        return fixed_nodes("--nnodes", text);
    }
    let world_size =
        variables.parsed::<NonZeroUsize>("WORLD_SIZE", "a number from 1")?.map(NonZeroUsize::get);
    if let Some(text) = variables.text("PET_NNODES") {
        let nodes = fixed_nodes("PET_NNODES", &text)?;
        return match world_size {
            // Controllers of old count pods, whatever they are to start.
            Some(world_size) if world_size != nodes * per_node && world_size != nodes => {
                Err(Error::WorldSize { world_size, nodes, per_node })
            }
            _ => Ok(nodes),
        };
    }
    match world_size {
        None => Ok(1),
        Some(world_size) if world_size % per_node == 0 => Ok(world_size / per_node),
        Some(world_size) => Err(Error::Invalid {
            name: "WORLD_SIZE",
            value: world_size.to_string(),
            expected: format!("a multiple of PET_NPROC_PER_NODE, which is {per_node}"),
        }),
    }
}

/// Reads `N` or `N:N`.
fn fixed_nodes(name: &'static str, text: &str) -> Result<usize, Error> {
    let (fewest, most) = text.split_once(':').unwrap_or((text, text));
    match (fewest.trim().parse::<NonZeroUsize>(), most.trim().parse::<NonZeroUsize>()) {
        (Ok(fewest), Ok(most)) if fewest == most => Ok(fewest.get()),
        (Ok(_), Ok(_)) => Err(Error::NoRendezvous { name, value: text.to_owned() }),
        _ => Err(Error::Invalid { name, value: text.to_owned(), expected: "a number from 1".to_owned() }),
    }
}

fn node_rank(options: &PlaceArguments, variables: &Variables<'_>, nodes: usize) -> Result<usize, Error> {
    let (name, rank) = match options.node_rank {
        Some(rank) => ("--node-rank", Some(rank)),
        None => ("RANK", variables.agreed(["PET_NODE_RANK", "RANK"], "a number", "--node-rank")?),
    };
    match rank {
        Some(rank) if rank >= nodes => Err(Error::Invalid {
            name,
            value: rank.to_string(),
            expected: format!("below the number of nodes, which is {nodes}"),
        }),
        Some(rank) => Ok(rank),
        None if nodes == 1 => Ok(0),
        None => Err(Error::Missing {
            nodes,
            what: "which one this is",
            variables: "PET_NODE_RANK or RANK",
            option: "--node-rank",
            note: " (a PyTorchJob sets them where it has a Master)",
        }),
    }
}

fn master(options: &PlaceArguments, variables: &Variables<'_>, nodes: usize) -> Result<(String, u16), Error> {
    // Where nobody holds a rendezvous, its place is free for the master.
    let endpoint = variables.text("PET_RDZV_ENDPOINT");
    let (endpoint_host, endpoint_port) = match endpoint.as_deref().map(split_endpoint) {
        Some((host, port)) => (Some(host.to_owned()), port.map(str::to_owned)),
        None => (None, None),
    };
    let address = match &options.master_addr {
        Some(address) => Some(address.clone()),
        None => {
            variables.agreed(["PET_MASTER_ADDR", "MASTER_ADDR"], "a host", "--master-addr")?.or(endpoint_host)
        }
    };
    let address = match address {
        Some(address) => address,
        None if nodes == 1 => DEFAULT_ADDRESS.to_owned(),
        None => {
            return Err(Error::Missing {
                nodes,
                what: "where rank 0 is",
                variables: "PET_MASTER_ADDR or MASTER_ADDR",
                option: "--master-addr",
                note: "",
            });
        }
    };
    let expected = "a port";
    let port = match options.master_port {
        Some(port) => port,
        None => match variables.agreed(["PET_MASTER_PORT", "MASTER_PORT"], expected, "--master-port")? {
            Some(port) => port,
            None => endpoint_port
                .map(|value| {
                    value.parse().map_err(|_| Error::Invalid {
                        name: "PET_RDZV_ENDPOINT",
                        value,
                        expected: "a host and a port".to_owned(),
                    })
                })
                .transpose()?
                .unwrap_or(DEFAULT_PORT),
        },
    };
    if port == 0 && nodes > 1 {
        let expected = format!("a port that all {nodes} nodes know");
        return Err(Error::Invalid { name: "--master-port", value: "0".to_owned(), expected });
    }
    Ok((address, port))
}

/// `host:port`, `[address]:port` or a host alone.
pub(crate) fn split_endpoint(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests;
