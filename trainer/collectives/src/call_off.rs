//! A way to give a group up while it forms.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether a group that forms is called off.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// Says that a group which forms cannot come about, as whoever knows that one of its ranks will not come does.
/// [`Communicator::connect`](crate::Communicator::connect) asks it every few milliseconds; once the group has formed,
/// nobody asks any more.
#[derive(Clone)]
pub struct CallOff(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl CallOff {
    /// Calls the group off as soon as `reason` gives one, which names who will not come.
    pub fn once(reason: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reason))
    }

    pub(crate) fn reason(&self) -> Option<String> {
        (self.0)()
    }
}

impl fmt::Debug for CallOff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("CallOff").field(&self.reason()).finish()
    }
}
