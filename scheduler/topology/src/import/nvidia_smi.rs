//! The table that `nvidia-smi topo -m` prints.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::interior::{Accelerator, InteriorError, LinkKind, Nic, NodeInterior};

/// Why a table makes no interior. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NvidiaSmiError {
    /// No line begins with the columns `GPU0`, `GPU1`, ...
    #[error("there is no line with the columns GPU0, GPU1, ...: is this the output of `nvidia-smi topo -m`?")]
    NoTable,
    /// The columns of the GPUs are not GPU0, GPU1 and so on.
    #[error(
        "line {line}: the columns of GPUs must be GPU0, GPU1 and so on, but {column} comes in place {place}"
    )]
    Column {
        /// The line.
        line: usize,
        /// The column's title.
        column: String,
        /// Its place among the GPUs.
        place: usize,
    },
    /// A GPU has no row.
    #[error("there is no row for GPU{gpu}")]
    NoRow {
        /// The GPU.
        gpu: usize,
    },
    /// Two rows for one device.
    #[error("line {line}: {device} has a row already")]
    SecondRow {
        /// The line.
        line: usize,
        /// The device.
        device: String,
    },
    /// A row is too short.
    #[error("line {line}: the row of {device} has {found} cells where {expected} devices need as many")]
    Short {
        /// The line.
        line: usize,
        /// The device.
        device: String,
        /// Cells found.
        found: usize,
        /// Devices.
        expected: usize,
    },
    /// A cell that names no path.
    #[error("line {line}, column {column}: {cell:?} is none of X, NV#, PIX, PXB, PHB, NODE and SYS")]
    Cell {
        /// The line.
        line: usize,
        /// The column's title.
        column: String,
        /// What stands there.
        cell: String,
    },
    /// The paths contradict each other.
    #[error(transparent)]
    Interior(#[from] InteriorError),
}

/// Titles with spaces, which would fall apart into words.
const TITLES: [(&str, &str); 3] =
    [("CPU Affinity", "CPU-Affinity"), ("NUMA Affinity", "NUMA-Affinity"), ("GPU NUMA ID", "GPU-NUMA-ID")];

struct Row<'a> {
    line: usize,
    cells: Vec<&'a str>,
}

/// The interior that the table shows, for GPUs of this model. Network cards get the names of the legend.
pub fn interior(text: &str, accelerator: Accelerator) -> Result<NodeInterior, NvidiaSmiError> {
    let text = plain(text);
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let (line, header) = lines
        .by_ref()
        .map(|(line, content)| (line, content.split_whitespace().collect::<Vec<_>>()))
        .find(|(_, words)| words.first() == Some(&"GPU0") && !words.contains(&"X"))
        .ok_or(NvidiaSmiError::NoTable)?;
    let is_device = |title: &&&str| !TITLES.iter().any(|(_, joined)| joined == *title);
    let devices: Vec<&str> = header.iter().take_while(is_device).copied().collect();
    let gpus = devices.iter().take_while(|title| title.starts_with("GPU")).count();
    for (place, title) in devices[..gpus].iter().enumerate() {
        if **title != format!("GPU{place}") {
            return Err(NvidiaSmiError::Column { line, column: (*title).to_owned(), place });
        }
    }
    let (mut rows, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (line, content) in lines {
        let mut words = content.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(device) = first.strip_suffix(':').filter(|device| devices.contains(device)) {
            names.insert(device, words.collect::<Vec<_>>().join(" "));
        } else if devices.contains(&first)
            && rows.insert(first, Row { line, cells: words.collect() }).is_some()
        {
            return Err(NvidiaSmiError::SecondRow { line, device: first.to_owned() });
        }
    }
    let mut links = Vec::with_capacity(gpus * gpus);
    let mut numa = Vec::with_capacity(gpus);
    let mut paths: Vec<Vec<LinkKind>> = vec![Vec::with_capacity(gpus); devices.len() - gpus];
    let numa_title = header.iter().position(|title| *title == "NUMA-Affinity");
    for (gpu, device) in devices[..gpus].iter().enumerate() {
        let row = rows.get(device).ok_or(NvidiaSmiError::NoRow { gpu })?;
        if row.cells.len() < devices.len() {
            let (line, found, expected) = (row.line, row.cells.len(), devices.len());
            return Err(NvidiaSmiError::Short { line, device: (*device).to_owned(), found, expected });
        }
        for (column, cell) in row.cells[..devices.len()].iter().enumerate() {
            let kind = if column == gpu && *cell == "X" { Some(LinkKind::Pix) } else { kind(cell) };
            let fault = || NvidiaSmiError::Cell {
                line: row.line,
                column: devices[column].to_owned(),
                cell: cell.chars().take(40).collect(),
            };
            let kind = kind.ok_or_else(fault)?;
            if column < gpus { links.push(kind) } else { paths[column - gpus].push(kind) }
        }
        // Of several NUMA nodes (0-1) the first counts. An empty cell would shift the others.
        let cell = numa_title.filter(|_| row.cells.len() == header.len()).map(|column| row.cells[column]);
        numa.push(cell.and_then(|cell| cell.split(['-', ',']).next()?.parse().ok()));
    }
    let nics = devices[gpus..]
        .iter()
        .zip(paths)
        .map(|(title, paths)| Nic { name: names.remove(title).unwrap_or_else(|| (*title).to_owned()), paths })
        .collect();
    Ok(NodeInterior::new(accelerator, links, numa, nics)?)
}

fn kind(cell: &str) -> Option<LinkKind> {
    match cell {
        "PIX" => Some(LinkKind::Pix),
        "PXB" => Some(LinkKind::Pxb),
        "PHB" => Some(LinkKind::Phb),
        "NODE" => Some(LinkKind::Node),
        "SYS" | "SOC" => Some(LinkKind::Sys),
        _ => cell.strip_prefix("NV")?.parse().ok().filter(|links| *links > 0).map(LinkKind::NvLink),
    }
}

/// The text without the terminal's colours, each title one word.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            let _ = characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    TITLES.iter().fold(plain, |text, (title, joined)| text.replace(title, joined))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::interior::GpuSet;

    const TABLE: &str = "\
\t\u{1b}[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\u{1b}[0m
GPU0\t X \tNV4\tNODE\tSYS\tPIX\tSYS\t0-27,56-83\t0\t\tN/A
GPU1\tNV4\t X \tSYS\tSYS\tPXB\tSYS\t0-27,56-83\t0\t\tN/A
GPU2\tNODE\tSYS\t X \tPHB\tSYS\tPIX\t28-55,84-111\t1\t\tN/A
GPU3\tSYS\tSYS\tPHB\t X \tSYS\tNODE\t28-55,84-111\t1\t\tN/A
NIC0\tPIX\tPXB\tSYS\tSYS\t X \tSYS
NIC1\tSYS\tSYS\tPIX\tNODE\tSYS\t X

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_0
  NIC1: mlx5_bond_1
";

    #[test]
    fn paths_numa_nodes_and_network_cards() {
        let interior = interior(TABLE, Accelerator::A100).unwrap();
        assert_eq!(interior.gpu_count(), 4);
        assert_eq!(interior.link(0, 1), Some(LinkKind::NvLink(4)));
        assert_eq!(interior.link(3, 2), Some(LinkKind::Phb));
        assert_eq!(interior.link(1, 3), Some(LinkKind::Sys));
        assert_eq!((interior.numa(1), interior.numa(2)), (Some(0), Some(1)));
        assert_eq!(interior.nics()[1].name, "mlx5_bond_1");
        assert_eq!(interior.nearest_nic(3), Some(1));
        assert!((interior.ring_bandwidth(GpuSet(0b11)) - 80.0).abs() < 1e-9);
    }

    #[test]
    fn a_machine_without_network_cards_and_affinities() {
        let interior =
            interior("      GPU0  GPU1\nGPU0   X    SYS\nGPU1  SYS    X\n", Accelerator::PCIE).unwrap();
        assert_eq!(interior.link(0, 1), Some(LinkKind::Sys));
        assert_eq!(interior.numa(0), None);
    }

    #[test]
    fn faults_name_line_and_column() {
        let fault = |text: &str| interior(text, Accelerator::PCIE).unwrap_err().to_string();
        assert!(fault("").starts_with("there is no line with the columns GPU0"));
        assert_eq!(
            fault("GPU0 GPU2\n"),
            "line 1: the columns of GPUs must be GPU0, GPU1 and so on, but GPU2 comes in place 1"
        );
        assert_eq!(fault("GPU0 GPU1\nGPU0 X SYS\n"), "there is no row for GPU1");
        assert_eq!(fault("GPU0 GPU1\nGPU0 X SYS\nGPU0 X SYS"), "line 3: GPU0 has a row already");
        assert_eq!(
            fault("GPU0 GPU1\nGPU0 X\nGPU1 SYS X"),
            "line 2: the row of GPU0 has 1 cells where 2 devices need as many"
        );
        assert_eq!(
            fault("GPU0 GPU1\nGPU0 X NV\nGPU1 SYS X"),
            "line 2, column GPU1: \"NV\" is none of X, NV#, PIX, PXB, PHB, NODE and SYS"
        );
        assert_eq!(
            fault("GPU0 GPU1\nGPU0 X PIX\nGPU1 SYS X"),
            "the path from GPU 0 to GPU 1 differs from the path back"
        );
    }

    proptest! {
        #[test]
        fn damaged_tables_are_answered(
            cuts in prop::collection::vec((0_usize..900, 0_usize..9, "[GPUNICXSYV0-9 \\t\\n:]{0,6}"), 1..6),
        ) {
            let mut text: Vec<char> = TABLE.chars().collect();
            for (at, count, with) in cuts {
                let at = at % (text.len() + 1);
                let end = (at + count).min(text.len());
                text.splice(at..end, with.chars());
            }
            let _ = interior(&text.into_iter().collect::<String>(), Accelerator::H100);
        }
    }
}
