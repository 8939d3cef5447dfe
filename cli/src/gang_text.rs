//! What is said of a gang, as text for people.

use std::fmt::Write;

use muster_scheduler_controller::planner::{GangReport, StartBasis};

/// A gang's name as people know it: that of the gang, or of the one pod.
pub(crate) fn name(report: &GangReport) -> &str {
    report.gang.strip_prefix("pod ").unwrap_or(&report.gang)
}

/// Where its pods are, a line a node.
pub(crate) fn places(report: &GangReport) -> String {
    let mut text = String::new();
    for place in &report.places {
        let pods: Vec<String> = place
            .pods
            .iter()
            .map(|(pod, gpus)| match gpus.as_slice() {
                [] => pod.clone(),
                [one] => format!("{pod} (GPU {one})"),
                several => {
                    let several: Vec<String> = several.iter().map(u32::to_string).collect();
                    format!("{pod} (GPUs {})", several.join(","))
                }
            })
            .collect();
        let _infallible = writeln!(text, "  {}: {}", place.node, pods.join(", "));
    }
    text
}

/// Its place in line, when it is expected to start, and what would help.
pub(crate) fn outlook(report: &GangReport) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(place) = report.place_in_line {
        rows.push(("place in line", format!("{place} of {}, queue {}", report.line_length, report.queue)));
    }
    let expected = report.expected_start.map(|start| {
        let basis = match start.basis {
            StartBasis::Declared => "from declared run times",
            StartBasis::Learned => "from run times of jobs like those that run",
        };
        format!("{}, {basis}", start.at.strftime("%Y-%m-%d %H:%M UTC"))
    });
    rows.push(("expected start", expected.unwrap_or_else(|| "not known".to_owned())));
    let mut heading = "alternatives";
    for alternative in &report.alternatives {
        rows.push((heading, alternative.to_string()));
        heading = "";
    }
    let mut text = String::new();
    for (heading, row) in rows {
        let _infallible = writeln!(text, "  {heading:<14}  {row}");
    }
    text
}
