//! The tree as lines of text.

use std::fmt::Write as _;

use super::Occupancy;
use crate::link::Fabric;
use crate::tree::{DomainId, Topology};

/// Hosts that look alike in one domain and are drawn as one line, from so many on.
const FOLDED_FROM: usize = 5;

/// The tree with the bandwidth of each uplink and the free GPUs of each domain.
///
/// ```text
/// cluster                  24 nodes  96/192 GPUs free
/// ├─ rack r0               12 nodes  96/96 GPUs free  ↑ 1.2 TB/s 4:1
/// ```
/// Behind `⇄` stands how the GPUs of a host see each other, where that is known. Runs of hosts that look alike are one line unless `every_host` is set.
pub fn text(topology: &Topology, occupancy: &Occupancy, every_host: bool) -> String {
    let mut lines = Vec::new();
    let fold = !every_host;
    draw(topology, occupancy, fold, DomainId::ROOT, "", "", &mut lines);
    let width = lines.iter().map(|line| line.0.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, facts) in lines {
        let _ = writeln!(text, "{name:width$}  {facts}");
    }
    text
}

fn draw(
    topology: &Topology,
    occupancy: &Occupancy,
    fold: bool,
    domain: DomainId,
    branch: &str,
    indent: &str,
    lines: &mut Vec<(String, String)>,
) {
    let level = &topology.levels()[topology.level_of(domain).index()].name;
    let name =
        if domain == DomainId::ROOT { level.clone() } else { format!("{level} {}", topology.name(domain)) };
    lines.push((format!("{branch}{name}"), facts(topology, occupancy, domain)));
    let children: Vec<DomainId> = topology.children(domain).collect();
    let facts_of = |child: &DomainId| facts(topology, occupancy, *child);
    let mut start = 0;
    while start < children.len() {
        let first = children[start];
        let host = topology.level_of(first) == topology.host_level();
        let alike = children[start..].iter().take_while(|child| facts_of(child) == facts_of(&first)).count();
        let run = if fold && host && alike >= FOLDED_FROM { alike } else { 1 };
        let last = start + run == children.len();
        let (branch, deeper) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        if run > 1 {
            let (from, to) = (topology.name(first), topology.name(children[start + run - 1]));
            lines.push((
                format!("{indent}{branch}{run} hosts {from} … {to}"),
                format!("each {}", facts_of(&first)),
            ));
        } else {
            let (branch, indent) = (format!("{indent}{branch}"), format!("{indent}{deeper}"));
            draw(topology, occupancy, fold, first, &branch, &indent, lines);
        }
        start += run;
    }
}

/// What stands behind a name.
fn facts(topology: &Topology, occupancy: &Occupancy, domain: DomainId) -> String {
    let mut facts = Vec::new();
    if topology.level_of(domain) != topology.host_level() {
        let nodes = topology.positions(domain).len();
        facts.push(format!("{nodes} {}", if nodes == 1 { "node" } else { "nodes" }));
    }
    let (free, all) = occupancy.of(topology, domain);
    if all > 0 {
        facts.push(format!("{free}/{all} GPUs free"));
    }
    if domain != DomainId::ROOT {
        let link = topology.uplink(domain);
        let fabric = if link.fabric == Fabric::NvLink { " NVLink" } else { "" };
        let over = if link.oversubscription > 1.01 {
            format!(" {:.3}", link.oversubscription)
        } else {
            String::new()
        };
        let over = over.trim_end_matches('0').trim_end_matches('.');
        let over = if over.is_empty() { String::new() } else { format!("{over}:1") };
        facts.push(format!("↑ {}{fabric}{over}", bandwidth(link.bandwidth)));
    }
    if topology.level_of(domain) == topology.host_level()
        && let Some(Some(inside)) = occupancy.insides.get(topology.positions(domain).start as usize)
    {
        facts.push(format!("⇄ {inside}"));
    }
    facts.join("  ")
}

/// GB/s in a readable unit.
pub(super) fn bandwidth(gigabytes: f64) -> String {
    let (amount, unit) = if gigabytes >= 1000.0 { (gigabytes / 1000.0, "TB/s") } else { (gigabytes, "GB/s") };
    let text = format!("{amount:.1}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}
