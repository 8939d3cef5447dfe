//! Who may start when: queues and quota, fair share, priority, reservations in time, preemption. Pure.

mod backlog;
pub mod calendar;
pub mod consolidate;
mod cycle;
pub mod estimate;
pub mod explain;
pub mod fair;
pub mod forecast;
pub mod job;
mod lower;
pub mod planner;
pub mod policy;
mod preempt;
pub mod quota;
mod spec;
pub mod time;
mod timeline;
pub mod tree;
