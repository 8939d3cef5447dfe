//! Who may start when: queues and quota, fair share, priority, reservations in time, preemption. Pure.
