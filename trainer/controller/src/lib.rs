//! Reconcilers of the training kinds.
