//! Reports as text for people, CSV and JSON.

use std::fmt::Write as _;

use crate::report::{Report, Waits};

/// Milliseconds for people: `850 ms`, `12.3 s`, `4 m 5 s`, `3 h 20 m`.
fn length(milliseconds: f64) -> String {
    let seconds = milliseconds / 1000.0;
    let whole = seconds.round() as i64;
    match whole {
        _ if seconds < 1.0 => format!("{milliseconds:.0} ms"),
        0..100 => format!("{seconds:.1} s"),
        100..3600 => format!("{} m {} s", whole / 60, whole % 60),
        _ => format!("{} h {} m", whole / 3600, whole % 3600 / 60),
    }
}

/// Columns padded to the widest cell, the first to the left and the others to the right.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                line.extend([cell.as_str(), &pad]);
            } else {
                line.extend(["  ", &pad, cell]);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One line for each policy, then waits by class.
pub fn table(reports: &[Report]) -> String {
    let header = [
        "POLICY",
        "ENDED",
        "MAKESPAN",
        "UTILISATION",
        "FRAGMENTED",
        "MEAN WAIT",
        "P95 WAIT",
        "MAX WAIT",
        "STOPPED",
        "ALL-REDUCE",
        "CROSSINGS P95",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let several = reports.iter().any(|report| report.seed != reports[0].seed);
    let named = |report: &Report| {
        if several { format!("{} #{}", report.policy, report.seed) } else { report.policy.clone() }
    };
    for report in reports {
        let gangs = report.gangs;
        let measured = |text: String| if gangs.gangs == 0 { "-".to_owned() } else { text };
        rows.push(vec![
            named(report),
            format!("{}/{}", report.ended, report.jobs),
            length(report.makespan as f64),
            format!("{:.1} %", report.utilisation * 100.0),
            format!("{:.1} %", report.fragmentation * 100.0),
            length(report.waits.mean),
            length(report.waits.p95 as f64),
            length(report.waits.max as f64),
            report.stopped.to_string(),
            measured(format!("{:.2} ms", gangs.all_reduce_mean * 1000.0)),
            measured(gangs.crossings_p95.to_string()),
        ]);
    }
    let mut text = columns(&rows);
    let header = ["CLASS", "POLICY", "STARTED", "MEAN WAIT", "P50", "P95", "P99", "MAX"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut classes: Vec<&str> =
        reports.iter().flat_map(|report| report.classes.iter().map(|class| class.class.as_str())).collect();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        for report in reports {
            let Some(found) = report.class(class) else { continue };
            let Waits { started, mean, p50, p95, p99, max } = found.waits;
            rows.push(vec![
                class.to_owned(),
                named(report),
                format!("{started}/{}", found.jobs),
                length(mean),
                length(p50 as f64),
                length(p95 as f64),
                length(p99 as f64),
                length(max as f64),
            ]);
        }
    }
    text.push('\n');
    text.push_str(&columns(&rows));
    text
}

/// One line for each policy, with a header; times in milliseconds, all-reduce in seconds.
pub fn summary_csv(reports: &[Report]) -> String {
    let mut text = "workload,policy,seed,jobs,ended,makespan_ms,utilisation,fragmentation,wait_mean_ms,wait_p50_ms,\
                    wait_p95_ms,wait_p99_ms,wait_max_ms,gangs,all_reduce_mean_s,all_reduce_p95_s,crossings_mean,\
                    crossings_p95,partial_gangs,stopped\n"
        .to_owned();
    for report in reports {
        let (waits, gangs) = (report.waits, report.gangs);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{:.6},{:.6},{:.3},{},{},{},{},{},{:.9},{:.9},{:.4},{},{},{}",
            quoted(&report.workload),
            quoted(&report.policy),
            report.seed,
            report.jobs,
            report.ended,
            report.makespan,
            report.utilisation,
            report.fragmentation,
            waits.mean,
            waits.p50,
            waits.p95,
            waits.p99,
            waits.max,
            gangs.gangs,
            gangs.all_reduce_mean,
            gangs.all_reduce_p95,
            gangs.crossings_mean,
            gangs.crossings_p95,
            report.partial_gangs,
            report.stopped,
        );
    }
    text
}

/// One line for each policy and class.
pub fn classes_csv(reports: &[Report]) -> String {
    let mut text =
        "policy,class,jobs,started,wait_mean_ms,wait_p50_ms,wait_p95_ms,wait_p99_ms,wait_max_ms\n".to_owned();
    for report in reports {
        for class in &report.classes {
            let Waits { started, mean, p50, p95, p99, max } = class.waits;
            let (policy, name) = (quoted(&report.policy), quoted(&class.class));
            let _ =
                writeln!(text, "{policy},{name},{},{started},{mean:.3},{p50},{p95},{p99},{max}", class.jobs);
        }
    }
    text
}

/// One line for each policy and sample.
pub fn curves_csv(reports: &[Report]) -> String {
    let mut text = "policy,at_ms,utilisation,fragmentation,waiting,mean_wait_s\n".to_owned();
    for report in reports {
        for sample in &report.samples {
            let _ = writeln!(
                text,
                "{},{},{:.6},{:.6},{},{:.3}",
                quoted(&report.policy),
                sample.at.0,
                sample.utilisation,
                sample.fragmentation,
                sample.waiting,
                sample.mean_wait
            );
        }
    }
    text
}

/// Everything, as JSON.
///
/// # Errors
/// When a figure is not a number.
pub fn json(reports: &[Report]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(reports)
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_readable() {
        let lengths = [3.0, 850.0, 12_340.0, 245_000.0, 12_000_000.0].map(length);
        assert_eq!(lengths, ["3 ms", "850 ms", "12.3 s", "4 m 5 s", "3 h 20 m"]);
    }

    #[test]
    fn names_with_commas_stay_one_field() {
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(quoted("plain"), "plain");
    }
}
