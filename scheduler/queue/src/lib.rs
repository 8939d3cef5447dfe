//! Who may start when: queues and quota, fair share, priority, reservations in time, preemption. Pure.
//!
//! A [`Planner`](planner::Planner) is told what happens: jobs come ([`submit`](planner::Planner::submit)), start
//! ([`started`](planner::Planner::started)), end ([`ended`](planner::Planner::ended)) and are evicted
//! ([`evicted`](planner::Planner::evicted)). Given the free room, [`cycle`](planner::Planner::cycle) decides who
//! starts now and where, who is promised which places from when on, and who must leave for whom. Time is passed
//! in, and the same events give the same decisions.
//!
//! A job that runs may change: [`join`](planner::Planner::join) says whether pods may join it, and
//! [`rehold`](planner::Planner::rehold) tells what it has now. One that was evicted, and comes back as other pods, stays
//! the same job, [amended](planner::Planner::amend). Queues are replaced under all of them by
//! [`set_tree`](planner::Planner::set_tree).
//!
//! Quota is a [`QueueTree`](tree::QueueTree); the order and what a blocked job does to others a
//! [`Policy`](policy::Policy). An [`Outlook`](outlook::Outlook) says of all who wait why they do, when they will
//! start (by playing the planner forward), and what would let them start now; any thread may ask it.

mod backlog;
pub mod calendar;
mod charge;
pub mod consolidate;
mod cycle;
pub mod estimate;
pub mod explain;
pub mod fair;
mod filling;
pub mod forecast;
mod hopeless;
mod idle;
pub mod job;
pub mod join;
mod nearness;
pub mod outlook;
pub mod planner;
pub mod policy;
mod preempt;
pub mod quota;
mod requeue;
mod running;
mod spec;
pub mod time;
mod timeline;
pub mod tree;
