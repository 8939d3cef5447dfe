//! The binder: plans gangs on the ledger and binds their pods.
