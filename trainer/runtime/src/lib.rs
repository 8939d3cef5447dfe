//! What runs inside the pods: data-parallel training over the collectives.
