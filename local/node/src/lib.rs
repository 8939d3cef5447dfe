//! A process kubelet: runs pods as process trees on this machine.
