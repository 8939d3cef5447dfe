//! The files: one list of nodes, and lists of pods.

use std::io::Read;

use muster_scheduler_core::GpuDemand;
use muster_scheduler_core::fragmentation::{ClassSet, Host, Want};
use serde::Deserialize;

/// A node of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Name.
    pub name: String,
    /// Thousandths of a processor, and memory in MiB.
    pub host: Host,
    /// GPUs.
    pub devices: usize,
    /// Index of its GPU model in [`Trace::models`].
    pub model: usize,
}

/// A pod of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// What it asks for.
    pub want: Want,
    /// When it was created, in seconds since the trace began.
    pub created: i64,
    /// When it was deleted.
    pub deleted: i64,
}

/// Nodes and pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// GPU models by index.
    pub models: Vec<String>,
    /// Nodes.
    pub machines: Vec<Machine>,
    /// Pods in the order of the file.
    pub pods: Vec<Pod>,
}

impl Trace {
    /// GPUs of all nodes, in thousandths.
    pub fn capacity(&self) -> u64 {
        self.machines.iter().map(|machine| machine.devices as u64 * 1000).sum()
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not the expected columns or values.
    #[error("the list of {what} does not parse: {source}; is it an openb CSV?")]
    Csv {
        /// Nodes or pods.
        what: &'static str,
        /// What the parser says.
        source: csv::Error,
    },
    /// A model that no node has.
    #[error("pod {pod} asks for GPU model {model:?}, which no node has")]
    UnknownModel {
        /// The pod.
        pod: String,
        /// The model.
        model: String,
    },
    /// Impossible numbers.
    #[error("pod {pod} asks for {count} GPUs of {milli} thousandths each: only one GPU can be shared")]
    Gpus {
        /// The pod.
        pod: String,
        /// GPUs.
        count: u32,
        /// Thousandths of each.
        milli: u32,
    },
}

#[derive(Deserialize)]
struct MachineRow {
    sn: String,
    cpu_milli: i64,
    memory_mib: i64,
    gpu: usize,
    model: String,
}

#[derive(Deserialize)]
struct PodRow {
    name: String,
    cpu_milli: i64,
    memory_mib: i64,
    num_gpu: u32,
    gpu_milli: u32,
    #[serde(default)]
    gpu_spec: Option<String>,
    #[serde(default)]
    creation_time: Option<i64>,
    #[serde(default)]
    deletion_time: Option<i64>,
}

/// Reads a list of nodes; the trace has no pods yet.
///
/// # Errors
/// [`ReadError::Csv`].
pub fn machines(input: impl Read) -> Result<Trace, ReadError> {
    let mut trace = Trace::default();
    for row in csv::Reader::from_reader(input).deserialize() {
        let row: MachineRow = row.map_err(|source| ReadError::Csv { what: "nodes", source })?;
        let model = trace.models.iter().position(|model| *model == row.model).unwrap_or_else(|| {
            trace.models.push(row.model.clone());
            trace.models.len() - 1
        });
        let host = [row.cpu_milli, row.memory_mib];
        trace.machines.push(Machine { name: row.sn, host, devices: row.gpu, model });
    }
    Ok(trace)
}

/// Reads a list of pods for nodes of these GPU models.
///
/// # Errors
/// [`ReadError`].
pub fn pods(input: impl Read, models: &[String]) -> Result<Vec<Pod>, ReadError> {
    let mut pods = Vec::new();
    for row in csv::Reader::from_reader(input).deserialize() {
        let row: PodRow = row.map_err(|source| ReadError::Csv { what: "pods", source })?;
        let gpu = match (row.num_gpu, row.gpu_milli) {
            (0, _) | (_, 0) => GpuDemand::None,
            (1, share @ 1..1000) => GpuDemand::Share(share as u16),
            (count, 1000) => GpuDemand::Whole(count),
            (count, milli) => return Err(ReadError::Gpus { pod: row.name, count, milli }),
        };
        let classes = match row.gpu_spec.as_deref().unwrap_or("") {
            "" => ClassSet::ALL,
            spec => {
                let index = |model: &str| models.iter().position(|known| known == model);
                let classes: Option<Vec<usize>> = spec.split('|').map(index).collect();
                let unknown = || ReadError::UnknownModel { pod: row.name.clone(), model: spec.to_owned() };
                ClassSet::of(classes.ok_or_else(unknown)?)
            }
        };
        let want = Want { gpu, host: [row.cpu_milli, row.memory_mib], classes };
        let created = row.creation_time.unwrap_or(0);
        let deleted = row.deletion_time.unwrap_or(i64::MAX);
        pods.push(Pod { name: row.name, want, created, deleted });
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,96000,393216,8,G2\n";

    #[test]
    fn nodes_and_pods_are_read() {
        let trace = machines(NODES.as_bytes()).unwrap();
        assert_eq!(trace.capacity(), 10_000);
        assert_eq!(trace.models, ["P100", "G2"]);
        let list = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\na,1000,20,1,460,,LS\nb,1,2,2,1000,G2,LS\nc,7,8,0,0,,BE\n";
        let pods = pods(list.as_bytes(), &trace.models).unwrap();
        let gpus: Vec<GpuDemand> = pods.iter().map(|pod| pod.want.gpu).collect();
        assert_eq!(gpus, [GpuDemand::Share(460), GpuDemand::Whole(2), GpuDemand::None]);
        assert!(!pods[1].want.classes.contains(0) && pods[1].want.classes.contains(1));
        assert_eq!((pods[0].want.host, pods[0].created), ([1000, 20], 0));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n";
        let read = |line: &str| {
            pods(format!("{header}{line}\n").as_bytes(), &["G2".to_owned()]).unwrap_err().to_string()
        };
        assert_eq!(
            read("a,1,1,2,500,"),
            "pod a asks for 2 GPUs of 500 thousandths each: only one GPU can be shared"
        );
        assert_eq!(read("b,1,1,1,500,H100"), "pod b asks for GPU model \"H100\", which no node has");
        assert!(read("c,x,1,1,500,").starts_with("the list of pods does not parse"));
        assert!(machines("a,b\n1,2\n".as_bytes()).unwrap_err().to_string().contains("list of nodes"));
    }
}
