//! The rules of training jobs, against a model of a cluster.

mod laws;
mod objects;
mod restarts;
mod rules;
mod simulation;
mod validation;
mod world;
