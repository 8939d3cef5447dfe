//! How replicas move from the old replica sets to the new one. Pure.

use k8s_openapi::api::apps::v1::Deployment;

use crate::amount::{Rounding, resolve};

/// A replica set as a rollout sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its name.
    pub name: String,
    /// How many pods it should have.
    pub replicas: i32,
    /// How many of its pods are available.
    pub available: i32,
    /// How many pods the deployment wanted when the set was last scaled.
    pub desired: Option<i32>,
    /// How many pods all sets together were allowed then.
    pub allowed: Option<i32>,
}

/// How fast a deployment may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How many pods it wants.
    pub desired: i32,
    /// How many more there may be.
    pub surge: i32,
    /// How many may be missing.
    pub unavailable: i32,
}

/// How a deployment changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// A few pods at a time.
    Rolling,
    /// All old pods end before the first new one starts.
    Recreate,
}

/// New replica counts, by name.
pub(crate) type Scaling = Vec<(String, i32)>;

/// The strategy and pace of a deployment.
pub(crate) fn pace(deployment: &Deployment) -> (Strategy, Pace) {
    let Some(spec) = &deployment.spec else {
        return (Strategy::Rolling, Pace { desired: 0, surge: 0, unavailable: 0 });
    };
    let desired = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return (Strategy::Recreate, Pace { desired, surge: 0, unavailable: desired });
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let surge = resolve(surge, desired, Rounding::Up).unwrap_or(0);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let mut unavailable = resolve(unavailable, desired, Rounding::Down).unwrap_or(0);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    (Strategy::Rolling, Pace { desired, surge, unavailable: unavailable.min(desired) })
}

impl Pace {
    /// How many pods there may be.
    pub(crate) fn allowed(&self) -> i32 {
        if self.desired == 0 { 0 } else { self.desired + self.surge }
    }

    fn needed(&self) -> i32 {
        self.desired - self.unavailable
    }
}

/// How many replicas a new set, or one that grows again, gets now.
pub(crate) fn grow(strategy: Strategy, pace: Pace, new: i32, total: i32) -> i32 {
    if new > pace.desired || strategy == Strategy::Recreate {
        return pace.desired;
    }
    let room = (pace.desired + pace.surge - total).max(0);
    new + room.min(pace.desired - new)
}

/// The next step of a rolling update; `old` from the oldest on.
pub(crate) fn roll(pace: Pace, new: &Share, old: &[Share]) -> Scaling {
    let old_total: i32 = old.iter().map(|share| share.replicas).sum();
    let wanted = grow(Strategy::Rolling, pace, new.replicas, new.replicas + old_total);
    if wanted != new.replicas {
        return vec![(new.name.clone(), wanted)];
    }
    if old_total == 0 {
        return Vec::new();
    }
    let new_missing = (new.replicas - new.available).max(0);
    let mut room = new.replicas + old_total - pace.needed() - new_missing;
    if room <= 0 {
        return Vec::new();
    }
    let mut left: Vec<(&Share, i32)> = old.iter().map(|share| (share, share.replicas)).collect();
    // Pods that serve nobody go first.
    for (share, replicas) in &mut left {
        let idle = (*replicas - share.available).max(0).min(room);
        *replicas -= idle;
        room -= idle;
    }
    let available: i32 =
        new.available + old.iter().map(|share| share.available.min(share.replicas)).sum::<i32>();
    let mut spare = (available - pace.needed()).max(0);
    for (_, replicas) in &mut left {
        let down = (*replicas).min(spare);
        *replicas -= down;
        spare -= down;
    }
    let changed = left.into_iter().filter(|(share, replicas)| share.replicas != *replicas);
    changed.map(|(share, replicas)| (share.name.clone(), replicas)).collect()
}

/// The next step of a deployment that recreates its pods; `old_pods_left` when old pods have not ended yet.
pub(crate) fn recreate(pace: Pace, new: &Share, old: &[Share], old_pods_left: bool) -> Scaling {
    let down: Scaling =
        old.iter().filter(|share| share.replicas > 0).map(|share| (share.name.clone(), 0)).collect();
    if !down.is_empty() || old_pods_left || new.replicas == pace.desired {
        return down;
    }
    vec![(new.name.clone(), pace.desired)]
}

/// What a change of the wanted number does to sets in the middle of a rollout, or of a paused one. `shares` holds the
/// new set first, then the old ones from the youngest on.
pub(crate) fn rescale(strategy: Strategy, pace: Pace, new: Option<&Share>, shares: &[Share]) -> Scaling {
    let mut active: Vec<&Share> = shares.iter().filter(|share| share.replicas > 0).collect();
    if active.len() <= 1 {
        let only = active.pop().or(new).or(shares.first());
        let changed = only.filter(|share| share.replicas != pace.desired);
        return changed.map(|share| (share.name.clone(), pace.desired)).into_iter().collect();
    }
    let full = |share: &Share| share.replicas == pace.desired && share.available == pace.desired;
    if new.is_some_and(full) {
        let old = active.iter().filter(|share| Some(&share.name) != new.map(|new| &new.name));
        return old.map(|share| (share.name.clone(), 0)).collect();
    }
    if strategy == Strategy::Recreate {
        return Vec::new();
    }
    let total: i32 = active.iter().map(|share| share.replicas).sum();
    let mut left = pace.allowed() - total;
    let mut result = Vec::new();
    active.sort_by_key(|share| std::cmp::Reverse(share.replicas));
    for share in &active {
        let before = i64::from(share.allowed.unwrap_or(total).max(1));
        let target = (i64::from(share.replicas) * i64::from(pace.allowed()) * 2 + before) / (2 * before);
        let change = (target as i32 - share.replicas).clamp(left.min(0), left.max(0));
        left -= change;
        result.push((share, share.replicas + change));
    }
    if let Some((_, first)) = result.first_mut() {
        *first = (*first + left).max(0);
    }
    let changed = result.into_iter().filter(|(share, replicas)| share.replicas != *replicas);
    changed.map(|(share, replicas)| (share.name.clone(), replicas)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn share(name: &str, replicas: i32, available: i32) -> Share {
        Share { name: name.into(), replicas, available, desired: None, allowed: None }
    }

    const PACE: Pace = Pace { desired: 3, surge: 1, unavailable: 0 };

    #[test]
    fn percentages_round_in_favour_of_availability() {
        let deployment: Deployment = serde_json::from_value(serde_json::json!({ "spec": {
            "replicas": 3, "selector": {}, "template": {},
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
        }}))
        .unwrap();
        assert_eq!(pace(&deployment), (Strategy::Rolling, PACE));
    }

    #[test]
    fn a_rolling_update_goes_up_one_and_down_one() {
        assert_eq!(roll(PACE, &share("new", 0, 0), &[share("old", 3, 3)]), [("new".into(), 1)]);
        assert_eq!(roll(PACE, &share("new", 1, 0), &[share("old", 3, 3)]), []);
        assert_eq!(roll(PACE, &share("new", 1, 1), &[share("old", 3, 3)]), [("old".into(), 2)]);
        assert_eq!(roll(PACE, &share("new", 3, 3), &[share("old", 0, 0)]), []);
    }

    #[test]
    fn old_pods_that_serve_nobody_go_first() {
        let old = [share("a", 2, 2), share("b", 1, 0)];
        assert_eq!(roll(PACE, &share("new", 1, 0), &old), []);
        let pace = Pace { unavailable: 1, ..PACE };
        assert_eq!(roll(pace, &share("new", 1, 0), &old), [("b".into(), 0)]);
    }

    #[test]
    fn recreation_waits_for_the_last_old_pod() {
        let new = share("new", 0, 0);
        assert_eq!(recreate(PACE, &new, &[share("old", 3, 3)], true), [("old".into(), 0)]);
        assert_eq!(recreate(PACE, &new, &[share("old", 0, 0)], true), []);
        assert_eq!(recreate(PACE, &new, &[share("old", 0, 0)], false), [("new".into(), 3)]);
    }

    #[test]
    fn a_scaled_rollout_keeps_its_proportions() {
        let pace = Pace { desired: 10, surge: 5, unavailable: 2 };
        let mut shares = [share("new", 8, 4), share("old", 4, 4)];
        for share in &mut shares {
            share.allowed = Some(12);
        }
        let new = shares[0].clone();
        assert_eq!(
            rescale(Strategy::Rolling, pace, Some(&new), &shares),
            [("new".to_owned(), 10), ("old".to_owned(), 5)]
        );
        assert_eq!(rescale(Strategy::Rolling, pace, None, &shares[..1]), [("new".to_owned(), 10)]);
    }

    proptest! {
        /// Whatever the start, steps whose pods become available end with the new set alone, never above what is
        /// allowed nor below what is needed once it was reached.
        #[test]
        fn a_rolling_update_ends(desired in 0..12_i32, surge in 0..4_i32, unavailable in 0..4_i32, old in 0..12_i32) {
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable }.min(desired);
            let pace = Pace { desired, surge, unavailable };
            let (mut new, mut rest) = (share("new", 0, 0), share("old", old, old));
            for _ in 0..100 {
                for (name, replicas) in roll(pace, &new, std::slice::from_ref(&rest)) {
                    let share = if name == "new" { &mut new } else { &mut rest };
                    share.replicas = replicas;
                    share.available = share.available.min(replicas);
                }
                prop_assert!(new.replicas + rest.replicas <= (desired + surge).max(old));
                prop_assert!(new.available + rest.available >= pace.needed().min(old));
                new.available = new.replicas;
            }
            prop_assert_eq!((new.replicas, rest.replicas), (desired, 0));
        }
    }
}
