//! Who may start when: queues and quota, fair share, priority, reservations in time, preemption. Pure.

pub mod calendar;
pub mod estimate;
pub mod fair;
pub mod quota;
pub mod time;
pub mod tree;
