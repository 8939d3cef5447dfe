//! Gangs of namespaces whose pods a caller may not list stay without names.

use crate::planner::{Alternative, GangReport, Prospect};

/// Who stays without a name.
const SOMEBODY: &str = "another gang";

/// Takes the names of gangs of other namespaces out of a report.
pub(super) fn hide_others(report: &mut GangReport) {
    let GangReport { namespace, alternatives, .. } = report;
    for alternative in alternatives {
        match alternative {
            Alternative::Ends { gang, .. } => hide(gang, namespace),
            Alternative::Moves { gangs, .. } => gangs.iter_mut().for_each(|gang| hide(gang, namespace)),
            Alternative::Pods { .. }
            | Alternative::Level { .. }
            | Alternative::AnyDistance
            | Alternative::AnyArrangement
            | Alternative::Queue { .. } => {}
        }
    }
}

/// The same of a prospect.
pub(super) fn hide_others_of_prospect(prospect: &mut Prospect) {
    hide_others(&mut prospect.report);
    let Prospect { report, evicts } = prospect;
    for gang in evicts {
        hide(gang, &report.namespace);
    }
}

fn hide(gang: &mut String, namespace: &str) {
    let own = gang.split_once('/').is_some_and(|(of, _)| of == namespace);
    if !own {
        SOMEBODY.clone_into(gang);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gangs_of_the_same_namespace_have_names() {
        let hidden = |gang: &str| {
            let mut gang = gang.to_owned();
            hide(&mut gang, "a");
            gang
        };
        assert_eq!(
            ["a/x", "ab/x", "b/a/x", "another gang"].map(hidden),
            ["a/x", SOMEBODY, SOMEBODY, SOMEBODY]
        );
    }
}
