//! The rules of `TrainJob`, against a model of a cluster.

mod laws;
mod render;
mod rules;
mod simulation;
mod validation;
mod world;
