//! The training program as real processes.
