//! Collective communication over shared memory; knows no tensor library.
