//! Pure planning: the ledger and all-or-nothing gang placement.
