//! How the planning loop and the dashboard's answers meet: the loop hands out a picture of its planner when somebody
//! has asked for one, and goes on; everything else is worked out on the picture, elsewhere.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::planner::{Planner, Survey};

/// A picture answers for at least this long.
const FRESH: Duration = Duration::from_secs(1);
/// What taking a picture costs the loop is at most one part in so many of its time.
const SHARE: u32 = 50;

/// Wakes the loop.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// A picture of the planner.
pub(super) struct View {
    pub(super) survey: Arc<tokio::sync::Mutex<Survey>>,
    pub(super) taken: Timestamp,
    fresh_until: Instant,
}

#[derive(Default)]
struct State {
    /// Counts the times that a planner of this process began to lead.
    term: u64,
    /// Wakes the planner that leads.
    wake: Option<Wake>,
    asked: bool,
    view: Option<Arc<View>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a new picture, or nobody leads any more.
    changed: Notify,
}

/// Where a planner that leads shows itself to the dashboard.
#[derive(Clone, Default)]
pub struct Handle(Arc<Shared>);

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Handle")
    }
}

impl Handle {
    /// From now on this process leads, until what is returned is dropped. `wake` is called when somebody asks.
    pub(crate) fn lead(&self, wake: impl Fn() + Send + Sync + 'static) -> Leading {
        let mut state = self.0.state.lock();
        state.term += 1;
        *state = State { term: state.term, wake: Some(Arc::new(wake)), asked: false, view: None };
        Leading { shared: self.0.clone(), term: state.term }
    }

    /// A picture that is not old; nothing when this process does not lead. Waits for as long as the loop takes.
    pub(super) async fn view(&self) -> Option<Arc<View>> {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.0.state.lock();
                let wake = state.wake.clone()?;
                if let Some(view) = state.view.as_ref().filter(|view| view.fresh_until > Instant::now()) {
                    return Some(view.clone());
                }
                if !std::mem::replace(&mut state.asked, true) {
                    wake();
                }
            }
            changed.await;
        }
    }

    /// The last picture, however old.
    pub(super) fn last(&self) -> Option<Arc<View>> {
        self.0.state.lock().view.clone()
    }
}

/// A planner that leads. Once it is dropped, nothing is shown.
pub(crate) struct Leading {
    shared: Arc<Shared>,
    term: u64,
}

impl Leading {
    /// Whether somebody asks for a picture.
    pub(crate) fn is_asked(&self) -> bool {
        self.shared.state.lock().asked
    }

    /// Hands out a picture, which `took` so long to take.
    pub(crate) fn show(&self, planner: Planner, taken: Timestamp, took: Duration) {
        let survey = Arc::new(tokio::sync::Mutex::new(Survey::new(planner, taken)));
        let fresh_until = Instant::now() + FRESH.max(took * SHARE);
        let view = Arc::new(View { survey, taken, fresh_until });
        let before = {
            let mut state = self.shared.state.lock();
            if state.term != self.term {
                return;
            }
            state.asked = false;
            state.view.replace(view)
        };
        self.shared.changed.notify_waiters();
        // A large picture is taken apart elsewhere.
        tokio::task::spawn_blocking(move || drop(before));
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if state.term == self.term {
            *state = State { term: self.term, ..State::default() };
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn planner() -> Planner {
        Planner::new(["muster".to_owned()])
    }

    /// A handle whose planner counts how often it is woken.
    fn leading(handle: &Handle) -> (Leading, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        let leading = handle.lead(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (leading, woken)
    }

    #[tokio::test(start_paused = true)]
    async fn a_picture_is_taken_when_somebody_asks_and_serves_all_for_a_while() {
        let handle = Handle::default();
        assert!(handle.view().await.is_none(), "nobody leads");
        let (leading, woken) = leading(&handle);
        assert!(!leading.is_asked());
        let asking = {
            let handle = handle.clone();
            tokio::spawn(async move { tokio::join!(handle.view(), handle.view()) })
        };
        tokio::task::yield_now().await;
        assert!(leading.is_asked() && woken.load(Ordering::SeqCst) == 1);
        leading.show(planner(), Timestamp::UNIX_EPOCH, Duration::from_millis(100));
        let (one, other) = asking.await.unwrap();
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()) && !leading.is_asked());
        // It took a tenth of a second, so the next is not taken for five.
        tokio::time::advance(Duration::from_millis(4_900)).await;
        assert!(handle.view().await.is_some() && woken.load(Ordering::SeqCst) == 1);
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), handle.view()).await.is_err());
        assert!(woken.load(Ordering::SeqCst) == 2 && handle.last().is_some());
    }

    #[tokio::test]
    async fn who_leads_no_more_shows_nothing_and_keeps_nobody_waiting() {
        let handle = Handle::default();
        let (first, _) = leading(&handle);
        let asking = {
            let handle = handle.clone();
            tokio::spawn(async move { handle.view().await.is_none() })
        };
        tokio::task::yield_now().await;
        drop(first);
        assert!(asking.await.unwrap());
        let (first, _) = leading(&handle);
        let (_second, _) = leading(&handle);
        first.show(planner(), Timestamp::UNIX_EPOCH, Duration::ZERO);
        assert!(handle.last().is_none(), "an earlier term");
        drop(first);
        assert!(handle.0.state.lock().wake.is_some(), "the end of an earlier term ends no later one");
    }
}
