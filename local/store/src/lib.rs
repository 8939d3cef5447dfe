//! Revisioned object store with a watch cache, on SQLite or in memory.
