//! What pods use, summed over their processes from `/proc`.

use std::collections::BTreeMap;

use fs_err as fs;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::record::Record;
use crate::runtime::{container_pids, init_pid};

/// Nanoseconds of one clock tick: the kernel shows times in hundredths of a second on every platform we run on.
const TICK_NANOSECONDS: u64 = 10_000_000;
const PAGE_BYTES: u64 = 4096;

#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    cpu_nanoseconds: u64,
    memory_bytes: u64,
}

/// The answer to `/stats/summary`: per pod and per node the processor time used so far and the resident memory.
pub(super) fn summary(context: &Context) -> Value {
    let processes = processes();
    let mut nodes: BTreeMap<String, (Usage, Vec<Value>)> =
        context.allocatable.keys().map(|node| (node.clone(), Default::default())).collect();
    for (directory, record) in Record::load_all(&context.pods_dir()) {
        let Some(pid) = (!record.finished).then(|| init_pid(&directory)).flatten() else { continue };
        let usage = tree(&processes, pid);
        let containers: Vec<Value> = containers(&processes, pid, &container_pids(&directory))
            .into_iter()
            .map(|(name, usage)| {
                json!({
                    "name": name,
                    "cpu": {"usageCoreNanoSeconds": usage.cpu_nanoseconds},
                    "memory": {"workingSetBytes": usage.memory_bytes, "rssBytes": usage.memory_bytes},
                })
            })
            .collect();
        let (total, pods) = nodes.entry(record.node.clone()).or_default();
        total.cpu_nanoseconds += usage.cpu_nanoseconds;
        total.memory_bytes += usage.memory_bytes;
        pods.push(json!({
            "podRef": {"name": record.name, "namespace": record.namespace, "uid": record.uid},
            "cpu": {"usageCoreNanoSeconds": usage.cpu_nanoseconds},
            "memory": {"workingSetBytes": usage.memory_bytes, "rssBytes": usage.memory_bytes},
            "containers": containers,
        }));
    }
    let nodes: Vec<Value> = nodes
        .into_iter()
        .map(|(name, (usage, pods))| {
            json!({
                "node": {
                    "nodeName": name,
                    "cpu": {"usageCoreNanoSeconds": usage.cpu_nanoseconds},
                    "memory": {"workingSetBytes": usage.memory_bytes},
                },
                "pods": pods,
            })
        })
        .collect();
    json!({"nodes": nodes})
}

/// What the processes of each container use. `names` has the numbers that the pod's init sees.
fn containers(
    processes: &BTreeMap<i32, (i32, Usage)>,
    init: i32,
    names: &BTreeMap<i32, String>,
) -> Vec<(String, Usage)> {
    if names.is_empty() {
        return Vec::new();
    }
    let depth = numbers(init).len();
    let children = processes.iter().filter(|(_, (parent, _))| *parent == init).map(|(pid, _)| *pid);
    let named = children.filter_map(|pid| {
        let number = *numbers(pid).get(depth.checked_sub(1)?)?;
        Some((names.get(&number)?.clone(), tree(processes, pid)))
    });
    named.collect()
}

/// The numbers of a process from the outermost PID namespace that we see inwards.
fn numbers(pid: i32) -> Vec<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// Parent and usage of every process.
fn processes() -> BTreeMap<i32, (i32, Usage)> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parse_stat(&stat)?))
        })
        .collect()
}

/// Fields after the name, which may itself contain blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(i32, Usage)> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    let usage = Usage { cpu_nanoseconds: ticks * TICK_NANOSECONDS, memory_bytes: number(21)? * PAGE_BYTES };
    Some((fields.get(1)?.parse().ok()?, usage))
}

fn tree(processes: &BTreeMap<i32, (i32, Usage)>, root: i32) -> Usage {
    let mut total = Usage::default();
    let mut members = vec![root];
    while let Some(pid) = members.pop() {
        if let Some((_, usage)) = processes.get(&pid) {
            total.cpu_nanoseconds += usage.cpu_nanoseconds;
            total.memory_bytes += usage.memory_bytes;
        }
        members.extend(processes.iter().filter(|(_, (parent, _))| *parent == pid).map(|(child, _)| *child));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_an_odd_name() {
        let line =
            "12 (a) b) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 1 2 20 0 1 0 100 4096 25 18446744073709551615";
        let (parent, usage) = parse_stat(line).unwrap();
        assert_eq!(
            (parent, usage.cpu_nanoseconds, usage.memory_bytes),
            (7, 14 * TICK_NANOSECONDS, 25 * PAGE_BYTES)
        );
    }
}
