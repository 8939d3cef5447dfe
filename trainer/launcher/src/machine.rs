//! What a machine is made of, as far as it matters to workers. Pure.

/// A processor that the launcher may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cpu {
    /// NUMA node.
    pub(crate) node: usize,
    /// Physical core: the lowest processor on it.
    pub(crate) core: usize,
    pub(crate) id: usize,
}

/// A GPU that the launcher can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Such as `GPU-5f1c...`, if the driver says.
    pub(crate) uuid: Option<String>,
    /// NUMA node, if the machine says.
    pub(crate) node: Option<usize>,
}

/// Processors and GPUs of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Those that the launcher may use.
    pub(crate) cpus: Vec<Cpu>,
    /// In the order of their PCI addresses, which is that of `nvidia-smi`.
    pub(crate) gpus: Vec<Gpu>,
}

impl Machine {
    /// The NUMA nodes of the GPUs that a process sees, in its own numbering. `given` is `CUDA_VISIBLE_DEVICES`: numbers or
    /// the beginnings of UUIDs; as for CUDA, whatever follows an entry that names no GPU does not count. Where the
    /// machine tells nothing of GPUs, every entry is believed.
    pub(crate) fn visible_gpus(&self, given: Option<&str>) -> Vec<Option<usize>> {
        let Some(given) = given else { return self.gpus.iter().map(|gpu| gpu.node).collect() };
        given.split(',').map_while(|entry| self.gpu_node(entry.trim())).collect()
    }

    /// The node of a GPU that there is.
    #[expect(clippy::option_option, reason = "no such GPU, and a GPU of unknown place, are two things")]
    fn gpu_node(&self, entry: &str) -> Option<Option<usize>> {
        let by_uuid = |gpu: &&Gpu| gpu.uuid.as_ref().is_some_and(|uuid| uuid.starts_with(entry));
        match entry.parse::<usize>() {
            Ok(_) if self.gpus.is_empty() => Some(None),
            Ok(index) => self.gpus.get(index).map(|gpu| gpu.node),
            Err(_) if entry.starts_with("GPU-") && self.gpus.iter().any(|gpu| gpu.uuid.is_some()) => {
                self.gpus.iter().find(by_uuid).map(|gpu| gpu.node)
            }
            Err(_) if entry.starts_with("GPU-") || entry.starts_with("MIG-") => Some(None),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let gpu = |uuid: &str, node| Gpu { uuid: Some(uuid.to_owned()), node };
        Machine {
            gpus: vec![gpu("GPU-aa11", Some(0)), gpu("GPU-bb22", Some(1)), gpu("GPU-cc33", None)],
            ..Machine::default()
        }
    }

    #[test]
    fn gpus_are_those_that_cuda_sees() {
        let machine = machine();
        assert_eq!(machine.visible_gpus(None), [Some(0), Some(1), None]);
        assert_eq!(machine.visible_gpus(Some("1, 0")), [Some(1), Some(0)]);
        assert_eq!(machine.visible_gpus(Some("GPU-bb,GPU-aa11")), [Some(1), Some(0)]);
        assert_eq!(machine.visible_gpus(Some("MIG-0,2")), [None, None]);
        assert_eq!(machine.visible_gpus(Some("1,-1,0")), [Some(1)], "nothing counts after what is no GPU");
        assert_eq!(machine.visible_gpus(Some("0,3,1")), [Some(0)]);
        assert_eq!(machine.visible_gpus(Some("GPU-ff,0")), []);
        assert_eq!(machine.visible_gpus(Some("")), []);
    }

    #[test]
    fn slots_count_where_the_machine_tells_nothing() {
        assert_eq!(Machine::default().visible_gpus(Some("4,5,7")), [None, None, None]);
        assert_eq!(Machine::default().visible_gpus(None), []);
    }
}
