//! The rules of `JobSet`, against a model of a cluster.

mod laws;
mod objects;
mod rules;
mod simulation;
mod validation;
mod world;
