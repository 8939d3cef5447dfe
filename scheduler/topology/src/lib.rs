//! Where nodes and GPUs are: one tree of domains and links, its importers, and what collectives cost on it.
