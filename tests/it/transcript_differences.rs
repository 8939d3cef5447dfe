//! Where `kubectl` prints something else than with a real cluster, and why that is meant.

/// Lines that may differ.
pub(crate) struct Meant {
    /// Start of the command.
    pub(crate) command: &'static str,
    /// Regular expression over a line of the difference: `-` the real one, `+` ours.
    pub(crate) lines: &'static str,
    /// Why.
    #[allow(dead_code, reason = "read by people")]
    pub(crate) why: &'static str,
}

const fn meant(command: &'static str, lines: &'static str, why: &'static str) -> Meant {
    Meant { command, lines, why }
}

/// Every difference that is meant.
pub(crate) const MEANT: &[Meant] = &[
    meant(
        "kubectl diff",
        r"gpu-indices|^[-+]out: @@|^[-+]out:    annotations:$|LIVE|MERGED",
        "the slots that the pod was given are noted on it, one line more; other temporary files",
    ),
    meant(
        "kubectl describe pod",
        r"gpu-indices|note: again",
        "the slots that the pod was given are noted on it",
    ),
    meant("kubectl describe pod", r"(Container|Image) ID:", "the recorded nodes ran nothing"),
    meant(
        "kubectl describe pod",
        r"out:   (Ready|PodScheduled|PodReadyToStartContainers|Initialized|ContainersReady)  True$",
        "a real kubelet's conditions, in the order in which they came true",
    ),
    meant(
        "kubectl describe pod",
        r"^\+out:   Normal  (Started|Created)  <age>  muster-node",
        "the recorded nodes ran nothing",
    ),
    meant(
        "kubectl get events",
        r"^\+out: <age>  Normal  (Started|Created)  pod/web",
        "the recorded nodes ran nothing",
    ),
    meant(
        "kubectl describe deploy",
        r"^\+out:       (sleep|3600)$|^\+out:     Command:$",
        "our manifest has a command, since no image brings one",
    ),
    meant(
        "kubectl get pytorchjobs",
        r"out: digits",
        "a controller looks after the job here, and its program is not there",
    ),
    meant(
        "kubectl get pytorchjob digits",
        r"^\+",
        "a controller looks after the job here, and its program is not there",
    ),
    meant(
        "kubectl api-resources --api-group=kubeflow.org",
        r"^\+out: (jax|paddle|tf|xgboost)jobs  ",
        "the recorded cluster had no training kind but PyTorchJob",
    ),
    meant(
        "kubectl api-resources --api-group=kubeflow.org",
        r"^[-+]out: mpijobs  ",
        "the recorded cluster had MPIJob v2beta1 alone; here is v1 too, and kubectl shows the stable version",
    ),
    meant("kubectl patch", r"error decoding patch", "another JSON decoder, other words"),
    meant("kubectl explain pytorchjob", r"^[-+]out:     ", "fields are described in our own words"),
    meant("kubectl explain pod", r"^[-+]out:(     .*)?$", "the built-in kinds carry no descriptions"),
    meant("kubectl auth whoami", r"UID|Extra:", "the administrator has a token, not a certificate"),
    meant(
        "kubectl replace",
        r"^-err: ( |-|\+|@@|$)",
        "the difference of the two specs in Go's notation is left out",
    ),
    meant("kubectl get nodes", r"out: n[01]", "the nodes run a version of their own"),
    meant("kubectl describe node", r"^[-+]out: ", "another node: its labels, conditions, sizes and system"),
    meant("kubectl top pods", r"", "the node's figures are served"),
];
