//! Who may start when: queues and quota, fair share, priority, reservations in time, preemption. Pure.
//!
//! A [`Planner`](planner::Planner) is told what happens: jobs come ([`submit`](planner::Planner::submit)), start
//! ([`started`](planner::Planner::started)), end ([`ended`](planner::Planner::ended)) and are evicted
//! ([`evicted`](planner::Planner::evicted)). Given the free room, [`cycle`](planner::Planner::cycle) decides who
//! starts now and where, who is promised which places from when on, and who must leave for whom. Time is passed
//! in, and the same events give the same decisions.
//!
//! Quota is a [`QueueTree`](tree::QueueTree); the order and what a blocked job does to others a
//! [`Policy`](policy::Policy). [`explain`](planner::Planner::explain) says why a job waits, when it will start
//! ([`forecast`](planner::Planner::forecast) plays the planner forward), and what would let it start now.

mod backlog;
pub mod calendar;
pub mod consolidate;
mod cycle;
pub mod estimate;
pub mod explain;
pub mod fair;
pub mod forecast;
pub mod job;
pub mod planner;
pub mod policy;
mod preempt;
pub mod quota;
mod spec;
pub mod time;
mod timeline;
pub mod tree;
