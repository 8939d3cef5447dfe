//! The laws of planning, over random clusters and gangs.

mod laws;
mod nearness;
mod sentences;
