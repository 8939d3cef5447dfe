//! Drives the planning core through traces in virtual time.
