//! The controllers a laptop needs because no kube-controller-manager runs there.
