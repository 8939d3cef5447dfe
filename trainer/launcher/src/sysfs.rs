//! Reads the machine from `/sys` and `/proc`. What cannot be read is left out: pods often see little of their machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fs_err as fs;

use crate::machine::{Cpu, Gpu, Machine};

/// Reads the machine below `root`, which is `/` outside of tests; of its processors, those `allowed`.
pub(crate) fn read(root: &Path, allowed: &BTreeSet<usize>) -> Machine {
    let nodes = nodes_of_processors(root);
    let cpu = |&id: &usize| Cpu {
        node: nodes.get(&id).copied().unwrap_or_default(),
        core: core(root, id).unwrap_or(id),
        id,
    };
    let mut cpus: Vec<_> = allowed.iter().map(cpu).collect();
    cpus.sort_unstable();
    Machine { cpus, gpus: gpus(root) }
}

/// The lowest processor of the core that `cpu` is on.
fn core(root: &Path, cpu: usize) -> Option<usize> {
    let topology = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
    // The second is what kernels before 5.4 call it.
    let siblings =
        ["core_cpus_list", "thread_siblings_list"].iter().find_map(|name| text(&topology.join(name)));
    list(&siblings?).into_iter().min()
}

fn nodes_of_processors(root: &Path) -> BTreeMap<usize, usize> {
    let numbered = |name: String| name.strip_prefix("node").and_then(|number| number.parse().ok());
    let folder = root.join("sys/devices/system/node");
    let nodes = names(&folder).into_iter().filter_map(numbered);
    let cpus = |node: usize| list(&text(&folder.join(format!("node{node}/cpulist"))).unwrap_or_default());
    nodes.flat_map(|node| cpus(node).into_iter().map(move |cpu| (cpu, node))).collect()
}

/// The GPUs of NVIDIA's driver; in a container, those that it was given.
fn gpus(root: &Path) -> Vec<Gpu> {
    let folder = root.join("proc/driver/nvidia/gpus");
    let mut addresses = names(&folder);
    addresses.sort_unstable();
    let gpu = |address: String| Gpu {
        uuid: text(&folder.join(&address).join("information")).and_then(|information| uuid(&information)),
        // -1 where the machine does not say.
        node: text(&root.join("sys/bus/pci/devices").join(address.to_lowercase()).join("numa_node"))
            .and_then(|node| node.parse().ok()),
    };
    addresses.into_iter().map(gpu).collect()
}

// Of a GPU that nobody used yet, the driver has only question marks.
fn uuid(information: &str) -> Option<String> {
    let line = information.lines().find_map(|line| line.strip_prefix("GPU UUID:"))?;
    Some(line.trim().to_owned()).filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?'))
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Reads the kernel's way to write numbers, such as `0-3,8`; what is no such list has none.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // More than any kernel has is a broken file.
        (last < 1 << 16).then_some(first..=last)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert!(list("").is_empty());
        assert_eq!(list("0-99999999999,x,3"), [3]);
    }

    #[test]
    fn two_sockets_with_hyperthreads_and_gpus() {
        let root = tempfile::tempdir().unwrap();
        let information = "Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-5f1c\nDevice Minor: \t 3\n";
        write(
            root.path(),
            &[
                ("sys/devices/system/node/node0/cpulist", "0-1,4-5\n"),
                ("sys/devices/system/node/node1/cpulist", "2-3,6-7\n"),
                ("sys/devices/system/node/possible", "0-1\n"),
                ("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "0,4\n"),
                ("sys/devices/system/cpu/cpu4/topology/core_cpus_list", "0,4\n"),
                ("sys/devices/system/cpu/cpu7/topology/thread_siblings_list", "3,7\n"),
                ("proc/driver/nvidia/gpus/0000:4B:00.0/information", information),
                ("proc/driver/nvidia/gpus/0000:0b:00.0/information", "GPU UUID: \t GPU-????\n"),
                ("sys/bus/pci/devices/0000:4b:00.0/numa_node", "1\n"),
                ("sys/bus/pci/devices/0000:0b:00.0/numa_node", "-1\n"),
            ],
        );
        let machine = read(root.path(), &BTreeSet::from([0, 4, 7, 9]));
        let cpu = |node, core, id| Cpu { node, core, id };
        // Of processor 9 nothing is told: it is a core of its own.
        assert_eq!(machine.cpus, [cpu(0, 0, 0), cpu(0, 0, 4), cpu(0, 9, 9), cpu(1, 3, 7)]);
        let known = Gpu { uuid: Some("GPU-5f1c".into()), node: Some(1) };
        assert_eq!(machine.gpus, [Gpu::default(), known]);
    }

    #[test]
    fn the_machine_of_this_test_has_processors() {
        let machine = read(Path::new("/"), &BTreeSet::from([0]));
        assert_eq!(machine.cpus.len(), 1);
        assert_eq!(machine.cpus[0].id, 0);
    }
}
