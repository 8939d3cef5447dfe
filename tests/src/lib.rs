//! Whole-system acceptance tests.
