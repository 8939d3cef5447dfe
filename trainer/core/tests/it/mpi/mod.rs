//! MPI jobs, against a model of a cluster with a controller of Jobs.

mod objects;
mod rules;
mod simulation;
mod validation;
mod world;
