//! Slurm's `topology.conf`: a tree of switches, or blocks.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::hostlist::{self, HostlistError};
use crate::tree::{BuildError, Level, NodeEntry, SharedNames, Topology};

/// Levels between root and host that a tree has room for.
const MAX_LEVELS: usize = 14;

/// Why a file makes no tree. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SlurmError {
    /// A word that is not `Key=value`.
    #[error("line {line}: {word:?} is not of the form Key=value")]
    Word {
        /// The line.
        line: usize,
        /// The word.
        word: String,
    },
    /// A key that does not belong there, or twice.
    #[error("line {line}: {key} does not belong here, or stands twice")]
    Key {
        /// The line.
        line: usize,
        /// The key.
        key: String,
    },
    /// A list of hosts that cannot be read.
    #[error("line {line}: {key}: {fault}")]
    Hosts {
        /// The line.
        line: usize,
        /// The key.
        key: &'static str,
        /// What is wrong.
        fault: HostlistError,
    },
    /// A number that is none.
    #[error("line {line}: {key} must be {expected}, not {value:?}")]
    Number {
        /// The line.
        line: usize,
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        value: String,
    },
    /// A switch without members, or with both kinds.
    #[error("line {line}: switch {name:?} must have either Switches or Nodes")]
    Members {
        /// The line.
        line: usize,
        /// The switch.
        name: String,
    },
    /// A name is given twice.
    #[error("line {line}: {name:?} is defined on line {first} already")]
    Duplicate {
        /// The line.
        line: usize,
        /// The name.
        name: String,
        /// The first line.
        first: usize,
    },
    /// A switch that no line defines.
    #[error("line {line}: switch {name:?} is not defined")]
    Unknown {
        /// The line.
        line: usize,
        /// The name.
        name: String,
    },
    /// A switch or node under two switches or in two blocks.
    #[error("line {line}: {name:?} already belongs to {owner:?}")]
    TwoOwners {
        /// The line.
        line: usize,
        /// The member.
        name: String,
        /// Its first owner.
        owner: String,
    },
    /// Switches that contain themselves.
    #[error("switch {name:?} contains itself")]
    Cycle {
        /// One of them.
        name: String,
    },
    /// Switches and blocks in one file.
    #[error("line {line}: a file describes either switches or blocks, not both")]
    Mixed {
        /// The line.
        line: usize,
    },
    /// More levels than a tree has.
    #[error("{found} levels are more than the {MAX_LEVELS} that a topology holds")]
    TooDeep {
        /// How many.
        found: usize,
    },
    /// The tree cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// A switch or block.
#[derive(Debug)]
struct Group {
    line: usize,
    name: String,
    switches: Vec<String>,
    nodes: Vec<String>,
    speed: Option<f64>,
}

#[derive(Debug, Default)]
struct File {
    groups: Vec<Group>,
    blocks: bool,
    /// Ascending; the first is the size of a block.
    block_sizes: Vec<usize>,
}

/// The tree that a `topology.conf` describes, over the nodes it names.
///
/// Of switches, those that connect nodes are the level `tier-0`, those above `tier-1` and so on. `LinkSpeed` is
/// relative: the uplink of the fastest switch of a level is as wide as the level's rule says and the others are
/// scaled. `BlockSizes=4,16` makes groups of 16/4 consecutive blocks above the blocks.
pub fn topology(text: &str) -> Result<Topology, SlurmError> {
    let file = read(text)?;
    check_owners(&file)?;
    if file.blocks { blocks(&file) } else { switches(&file) }
}

/// Lines without comments, joined where a backslash ends one, with the number of their first line.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim_end();
        let (content, continues) = line.strip_suffix('\\').map_or((line, false), |content| (content, true));
        match lines.last_mut().filter(|_| open) {
            Some((_, joined)) => {
                joined.push(' ');
                joined.push_str(content);
            }
            None => lines.push((index + 1, content.to_owned())),
        }
        open = continues;
    }
    lines.retain(|(_, content)| !content.trim().is_empty());
    lines
}

fn read(text: &str) -> Result<File, SlurmError> {
    let mut file = File::default();
    let mut defined: BTreeMap<String, usize> = BTreeMap::new();
    for (line, content) in lines(text) {
        let mut values: BTreeMap<String, &str> = BTreeMap::new();
        let mut first = String::new();
        for word in content.split_whitespace() {
            let (key, value) = word
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                .ok_or_else(|| SlurmError::Word { line, word: word.chars().take(80).collect() })?;
            let key = key.to_ascii_lowercase();
            if first.is_empty() {
                first.clone_from(&key);
            }
            if values.insert(key.clone(), value).is_some() {
                return Err(SlurmError::Key { line, key });
            }
        }
        let allowed: &[&str] = match first.as_str() {
            "switchname" => &["switchname", "switches", "nodes", "linkspeed"],
            "blockname" => &["blockname", "nodes"],
            "blocksizes" => &["blocksizes"],
            _ => &[],
        };
        if let Some(key) = values.keys().find(|key| !allowed.contains(&key.as_str())) {
            return Err(SlurmError::Key { line, key: key.clone() });
        }
        let is_block = first != "switchname";
        if (!file.groups.is_empty() || !file.block_sizes.is_empty()) && is_block != file.blocks {
            return Err(SlurmError::Mixed { line });
        }
        file.blocks = is_block;
        if let Some(sizes) = values.get("blocksizes") {
            file.block_sizes = block_sizes(line, sizes)?;
            continue;
        }
        let group = group(line, &values)?;
        if let Some(first) = defined.insert(group.name.clone(), line) {
            return Err(SlurmError::Duplicate { line, name: group.name, first });
        }
        file.groups.push(group);
    }
    Ok(file)
}

fn group(line: usize, values: &BTreeMap<String, &str>) -> Result<Group, SlurmError> {
    let hosts = |key: &str, name: &'static str| {
        let list = values.get(key).map_or(Ok(Vec::new()), |list| hostlist::expand(list));
        list.map_err(|fault| SlurmError::Hosts { line, key: name, fault })
    };
    let name =
        ["switchname", "blockname"].iter().find_map(|key| values.get(*key)).copied().unwrap_or_default();
    let speed = match values.get("linkspeed") {
        None => None,
        Some(text) => {
            let speed = text.parse::<f64>().ok().filter(|speed| speed.is_finite() && *speed > 0.0);
            let expected = "a number above zero";
            Some(speed.ok_or_else(|| SlurmError::Number {
                line,
                key: "LinkSpeed",
                expected,
                value: (*text).to_owned(),
            })?)
        }
    };
    let group = Group {
        line,
        name: name.to_owned(),
        switches: hosts("switches", "Switches")?,
        nodes: hosts("nodes", "Nodes")?,
        speed,
    };
    if group.switches.is_empty() == group.nodes.is_empty() {
        return Err(SlurmError::Members { line, name: group.name });
    }
    Ok(group)
}

/// Each size is the first times a power of two, as Slurm wants it.
fn block_sizes(line: usize, text: &str) -> Result<Vec<usize>, SlurmError> {
    let fault = || SlurmError::Number {
        line,
        key: "BlockSizes",
        expected: "rising sizes, each the first times a power of two",
        value: text.chars().take(80).collect(),
    };
    let sizes: Vec<usize> = text.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| fault())?;
    let base = sizes.first().copied().filter(|base| *base > 0).ok_or_else(fault)?;
    let valid = |size: &usize| size.is_multiple_of(base) && (size / base).is_power_of_two();
    let rising = sizes.windows(2).all(|pair| pair[0] < pair[1]);
    if sizes.iter().all(valid) && rising { Ok(sizes) } else { Err(fault()) }
}

/// No node and no switch belongs to two.
fn check_owners(file: &File) -> Result<(), SlurmError> {
    let (mut nodes, mut switches) = (BTreeMap::new(), BTreeMap::new());
    for group in &file.groups {
        for (members, owners) in [(&group.nodes, &mut nodes), (&group.switches, &mut switches)] {
            for member in members {
                if let Some(owner) = owners.insert(member.as_str(), group.name.as_str()) {
                    let (line, name) = (group.line, member.clone());
                    return Err(SlurmError::TwoOwners { line, name, owner: owner.to_owned() });
                }
            }
        }
    }
    Ok(())
}

fn switches(file: &File) -> Result<Topology, SlurmError> {
    let index: BTreeMap<&str, usize> =
        file.groups.iter().enumerate().map(|(index, group)| (group.name.as_str(), index)).collect();
    let mut parents: Vec<Option<usize>> = vec![None; file.groups.len()];
    for (parent, group) in file.groups.iter().enumerate() {
        for name in &group.switches {
            let unknown = || SlurmError::Unknown { line: group.line, name: name.clone() };
            parents[*index.get(name.as_str()).ok_or_else(unknown)?] = Some(parent);
        }
    }
    let heights = heights(file, &parents)?;
    let depth = heights.iter().map(|height| height + 1).max().unwrap_or(0);
    if depth > MAX_LEVELS {
        return Err(SlurmError::TooDeep { found: depth });
    }
    let mut entries = Vec::new();
    for (leaf, group) in file.groups.iter().enumerate() {
        let mut path = vec![None; depth];
        let mut at = Some(leaf);
        while let Some(switch) = at {
            path[depth - 1 - heights[switch]] = Some(file.groups[switch].name.as_str());
            at = parents[switch];
        }
        entries.extend(group.nodes.iter().map(|node| NodeEntry::new(node, &path)));
    }
    let levels = (0..depth).rev().map(|height| Level::new(format!("tier-{height}"), &[]));
    let topology = Topology::build(Level::between_cluster_and_host(levels), &entries, SharedNames::Refused)?;
    let mut fastest = vec![0.0_f64; depth];
    for (switch, group) in file.groups.iter().enumerate() {
        fastest[heights[switch]] = fastest[heights[switch]].max(group.speed.unwrap_or(0.0));
    }
    Ok(topology.with_scaled_uplinks(|topology, domain| {
        let switch = *index.get(topology.name(domain))?;
        let level = topology.level_of(domain).index();
        let own = (level == depth - heights[switch]).then(|| file.groups[switch].speed)??;
        Some(own / fastest[heights[switch]])
    }))
}

/// How many levels of switches are below each.
fn heights(file: &File, parents: &[Option<usize>]) -> Result<Vec<usize>, SlurmError> {
    let mut heights = vec![0; file.groups.len()];
    for leaf in 0..file.groups.len() {
        let (mut at, mut height) = (leaf, 0);
        let mut seen = BTreeSet::from([leaf]);
        while let Some(parent) = parents[at] {
            if !seen.insert(parent) {
                return Err(SlurmError::Cycle { name: file.groups[parent].name.clone() });
            }
            height += 1;
            heights[parent] = heights[parent].max(height);
            at = parent;
        }
    }
    Ok(heights)
}

fn blocks(file: &File) -> Result<Topology, SlurmError> {
    let base = file.block_sizes.first().copied().unwrap_or(1);
    let larger: Vec<usize> = file.block_sizes.iter().skip(1).rev().map(|size| size / base).collect();
    if larger.len() + 1 > MAX_LEVELS {
        return Err(SlurmError::TooDeep { found: larger.len() + 1 });
    }
    let group_name = |blocks: usize, group: usize| {
        let first = group * blocks;
        let last = (first + blocks).min(file.groups.len()) - 1;
        format!("{}..{}", file.groups[first].name, file.groups[last].name)
    };
    let names: Vec<Vec<String>> = (0..file.groups.len())
        .map(|block| larger.iter().map(|blocks| group_name(*blocks, block / blocks)).collect())
        .collect();
    let mut entries = Vec::new();
    for (group, names) in file.groups.iter().zip(&names) {
        let mut path: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        path.push(Some(&group.name));
        entries.extend(group.nodes.iter().map(|node| NodeEntry::new(node, &path)));
    }
    let levels = larger.iter().map(|blocks| Level::new(format!("blocks-of-{}", blocks * base), &[]));
    let levels = levels.chain([Level::new("block", &[])]);
    Ok(Topology::build(Level::between_cluster_and_host(levels), &entries, SharedNames::Refused)?)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::tree::LevelIndex;

    const TREE: &str = "\
# two leaves under one spine
SwitchName=s0 Nodes=node[001-002,010]  LinkSpeed=100
switchname=s1 nodes=node[003-004] LINKSPEED=50
SwitchName=core \\
   Switches=s[0-1]
SwitchName=lone Nodes=login
";

    const BLOCKS: &str = "\
BlockName=b1 Nodes=n[1-4]
BlockName=b2 Nodes=n[5-8]
BlockName=b3 Nodes=n[9-12]
BlockSizes=4,8
";

    fn paths(topology: &Topology, level: u8) -> Vec<String> {
        topology.domains(LevelIndex(level)).map(|domain| topology.path(domain)).collect()
    }

    #[test]
    fn switches() {
        let topology = topology(TREE).unwrap();
        assert_eq!(paths(&topology, 2), ["core/s0", "core/s1", "tier-0 lone (no tier-1)/lone"]);
        assert_eq!(topology.node_count(), 6);
        let leaves: Vec<_> = topology.domains(LevelIndex(2)).collect();
        let per_node = |leaf| topology.uplink(leaf).bandwidth / topology.positions(leaf).len() as f64;
        assert!((per_node(leaves[0]) / per_node(leaves[1]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn blocks() {
        let topology = topology(BLOCKS).unwrap();
        assert_eq!(paths(&topology, 2), ["b1..b2/b1", "b1..b2/b2", "b3..b3/b3"]);
        assert_eq!(topology.levels()[1].name, "blocks-of-8");
    }

    #[test]
    fn faults_name_the_line() {
        let fault = |text: &str| topology(text).unwrap_err().to_string();
        assert_eq!(fault("\nSwitchName=s0 Nodes"), "line 2: \"Nodes\" is not of the form Key=value");
        assert_eq!(fault("Nodes=a SwitchName=s0"), "line 1: nodes does not belong here, or stands twice");
        assert_eq!(fault("SwitchName=s0 Nodes=n[1-"), "line 1: Nodes: brackets do not match in \"n[1-\"");
        assert_eq!(
            fault("SwitchName=s0 Nodes=a LinkSpeed=fast"),
            "line 1: LinkSpeed must be a number above zero, not \"fast\""
        );
        assert_eq!(fault("SwitchName=s0"), "line 1: switch \"s0\" must have either Switches or Nodes");
        assert_eq!(
            fault("SwitchName=s0 Nodes=a\nSwitchName=s0 Nodes=b"),
            "line 2: \"s0\" is defined on line 1 already"
        );
        assert_eq!(fault("SwitchName=s0 Switches=s9"), "line 1: switch \"s9\" is not defined");
        assert_eq!(
            fault("SwitchName=s0 Nodes=a\nSwitchName=s1 Nodes=a"),
            "line 2: \"a\" already belongs to \"s0\""
        );
        assert_eq!(fault("SwitchName=a Switches=b\nSwitchName=b Switches=a"), "switch \"a\" contains itself");
        assert_eq!(
            fault("SwitchName=a Nodes=n\nBlockName=b Nodes=m"),
            "line 2: a file describes either switches or blocks, not both"
        );
        assert_eq!(
            fault("BlockSizes=4,12"),
            "line 1: BlockSizes must be rising sizes, each the first times a power of two, not \"4,12\""
        );
        let deep: Vec<String> = (0..20).map(|at| format!("SwitchName=s{} Switches=s{at}", at + 1)).collect();
        let deep = format!("SwitchName=s0 Nodes=n\n{}", deep.join("\n"));
        assert_eq!(fault(&deep), "21 levels are more than the 14 that a topology holds");
    }

    proptest! {
        #[test]
        fn damaged_files_are_answered(
            blocks in any::<bool>(),
            cuts in prop::collection::vec((0_usize..400, 0_usize..8, "[a-z0-9=\\[\\]\\-, \\n#\\\\S]{0,6}"), 1..5),
        ) {
            let mut text: Vec<char> = if blocks { BLOCKS } else { TREE }.chars().collect();
            for (at, count, with) in cuts {
                let at = at % (text.len() + 1);
                let end = (at + count).min(text.len());
                text.splice(at..end, with.chars());
            }
            let _ = topology(&text.into_iter().collect::<String>());
        }

        #[test]
        fn a_tree_that_is_written_down_is_read_back(leaves in prop::collection::vec(1_usize..6, 1..12), spines in 1_usize..4) {
            let mut text = String::new();
            let mut expected = BTreeMap::new();
            for (leaf, nodes) in leaves.iter().enumerate() {
                let _ = writeln!(text, "SwitchName=leaf{leaf} Nodes=l{leaf}n[0-{}]", nodes - 1);
                for node in 0..*nodes {
                    expected.insert(format!("l{leaf}n{node}"), format!("spine{}/leaf{leaf}", leaf % spines));
                }
            }
            for spine in 0..spines.min(leaves.len()) {
                let below: Vec<String> =
                    (spine..leaves.len()).step_by(spines).map(|leaf| format!("leaf{leaf}")).collect();
                let _ = writeln!(text, "SwitchName=spine{spine} Switches={}", below.join(","));
            }
            let topology = topology(&text).unwrap();
            for (node, path) in &expected {
                let position = topology.position_named(node).unwrap();
                prop_assert_eq!(&topology.path(topology.domain_at(LevelIndex(2), position)), path);
            }
            prop_assert_eq!(topology.node_count(), expected.len());
        }
    }
}
