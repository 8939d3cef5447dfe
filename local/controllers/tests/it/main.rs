//! The controllers against an API server in the same process, with a stand-in for the kubelet.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod autoscalers;
mod cron_jobs;
mod daemon_sets;
mod deployments;
mod garbage;
mod harness;
mod jobs;
mod namespaces;
mod nodes;
mod refusals;
mod resource_claims;
mod services;
mod stateful_sets;
mod volumes;
