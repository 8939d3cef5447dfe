//! Parts are killed at random moments while jobs come and go.
//!
//! `MUSTER_KILLS` sets how many kills (50 for a long run), `MUSTER_SEED` repeats one.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use super::parts::assert_gone;
use crate::harness::{GatedJob, Part, Parts};

const KILLS: usize = 6;
/// Longest time between two kills: about as long as a job takes to start.
const LONGEST_PAUSE: u64 = 1500;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn jobs_survive_kills_at_random_moments() {
    let kills =
        from_environment("MUSTER_KILLS").map_or(KILLS, |kills| usize::try_from(kills).expect("a count"));
    let seed = from_environment("MUSTER_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("seed {seed}, {kills} kills");
    let mut random = StdRng::seed_from_u64(seed);
    let mut parts = Parts::start(&Part::ALL).await;
    let mut done = 0;
    for round in 0.. {
        let job = GatedJob::write(&parts.home, &format!("job-{round}"));
        job.submit(&parts.home).await;
        let in_this_job = random.random_range(1..=3).min(kills - done);
        let opens_before = random.random_range(0..=in_this_job);
        for kill in 0..in_this_job {
            if kill == opens_before {
                job.open();
            }
            sleep(Duration::from_millis(random.random_range(0..LONGEST_PAUSE))).await;
            let part = Part::ALL[random.random_range(0..Part::ALL.len())];
            eprintln!("job {round}: kill {part:?}");
            parts.crash(part).await;
        }
        done += in_this_job;
        job.open();
        // Only the end of a part that loses what ran may cost a restart, and none of these does.
        job.assert_ends_well(&parts.home, in_this_job).await;
        parts.kubectl(&["delete", &job.reference()]).await.succeeded();
        assert_gone(&parts.home, &job).await;
        if done == kills {
            break;
        }
    }
    parts.stop().await;
}
