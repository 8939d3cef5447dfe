//! Pods that share a claim without devices yet run on one node: together they are placed as if they were one.

use std::collections::HashMap;

use crate::devices::WHOLE;
use crate::gang::Member;
use crate::node::Requirement;

/// Indices of members that are placed as one, in order; alone, where a member shares no claim.
pub(crate) fn bundles(members: &[Member]) -> Vec<Vec<usize>> {
    /// The first of those that a member is placed with.
    fn first(of: &[usize], mut index: usize) -> usize {
        while of[index] != index {
            index = of[index];
        }
        index
    }
    let mut of: Vec<usize> = (0..members.len()).collect();
    let mut brought: HashMap<&str, usize> = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        for claim in &member.claims {
            let other = *brought.entry(&claim.name).or_insert(index);
            let (one, other) = (first(&of, index), first(&of, other));
            of[one.max(other)] = one.min(other);
        }
    }
    let mut bundles: Vec<Vec<usize>> = vec![Vec::new(); members.len()];
    (0..members.len()).for_each(|index| bundles[first(&of, index)].push(index));
    bundles.retain(|bundle| !bundle.is_empty());
    bundles
}

/// What members need together of one node, each shared claim once.
pub(crate) fn together(members: &[&Member]) -> Member {
    let Some((first, others)) = members.split_first() else { return Member::default() };
    let mut all = (*first).clone();
    for member in others {
        all.requests.add(&member.requests);
        all.gpus += member.gpus;
        all.gpu_share = all.gpu_share.saturating_add(member.gpu_share);
        for (key, value) in &member.node_selector {
            let before = all.node_selector.insert(key.clone(), value.clone());
            if before.is_some_and(|before| before != *value) {
                // No node can please both.
                all.required_affinity = vec![vec![Requirement::NameIn(Vec::new())]];
            }
        }
        all.required_affinity = both(&all.required_affinity, &member.required_affinity);
        all.tolerations.retain(|toleration| member.tolerations.contains(toleration));
        for claim in &member.claims {
            if !all.claims.iter().any(|known| known.name == claim.name) {
                all.claims.push(claim.clone());
            }
        }
    }
    if all.gpu_share > WHOLE || all.gpu_share > 0 && all.gpus > 0 {
        // One GPU is all that shares of one place are of.
        all.required_affinity = vec![vec![Requirement::NameIn(Vec::new())]];
    }
    all
}

/// Terms of which one holds exactly where one of the left and one of the right hold; no terms hold everywhere.
pub fn both(left: &[Vec<Requirement>], right: &[Vec<Requirement>]) -> Vec<Vec<Requirement>> {
    if left.is_empty() || right.is_empty() {
        return if left.is_empty() { right.to_vec() } else { left.to_vec() };
    }
    let pairs = left.iter().flat_map(|left| right.iter().map(move |right| (left, right)));
    pairs.map(|(left, right)| left.iter().chain(right).cloned().collect()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::claims::{ClaimDemand, MemberClaim};

    fn member(claims: &[&str]) -> Member {
        let demand = Arc::new(ClaimDemand::new(Vec::new(), Vec::new()));
        let claim = |name: &&str| MemberClaim {
            name: (*name).to_owned(),
            demand: Arc::clone(&demand),
            anywhere: false,
        };
        Member { claims: claims.iter().map(claim).collect(), ..Member::default() }
    }

    #[test]
    fn whoever_shares_a_claim_with_one_shares_a_node_with_all_of_them() {
        let members =
            [member(&["a"]), member(&[]), member(&["b"]), member(&["c"]), member(&["a", "b"]), member(&[])];
        assert_eq!(bundles(&members), [vec![0, 2, 4], vec![1], vec![3], vec![5]]);
        let all = together(&[&members[0], &members[2], &members[4]]);
        let names: Vec<&str> = all.claims.iter().map(|claim| claim.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn both_of_two_selections_hold() {
        let on = |name: &str| vec![Requirement::NameIn(vec![name.to_owned()])];
        assert_eq!(both(&[], &[on("a")]), [on("a")]);
        assert_eq!(
            both(&[on("a"), on("b")], &[on("c")]),
            [[on("a"), on("c")].concat(), [on("b"), on("c")].concat()]
        );
    }
}
