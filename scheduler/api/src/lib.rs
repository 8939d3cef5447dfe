//! Names by which pods, nodes and gangs speak to the scheduler.
