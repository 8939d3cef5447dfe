//! Where the server's answers differ from the recorded ones, and why that is meant.

/// One kind of difference.
#[derive(Debug)]
pub(crate) struct Meant {
    /// Start of the recording's file name; empty for all.
    pub(crate) file: &'static str,
    /// Steps, each of which has such a difference; empty for all.
    pub(crate) steps: &'static [usize],
    /// Regular expression over the path of the difference.
    pub(crate) path: &'static str,
    /// Why.
    #[allow(dead_code, reason = "read by people")]
    pub(crate) why: &'static str,
}

const fn meant(file: &'static str, steps: &'static [usize], path: &'static str, why: &'static str) -> Meant {
    Meant { file, steps, path, why }
}

/// Every difference that is meant.
pub(crate) const MEANT: &[Meant] = &[
    meant("", &[], r"\.columnDefinitions\.[\w -]+\.description$", "columns are described in our own words"),
    meant("", &[], r"\.storageVersionHash$", "optional; nothing is migrated between storage versions here"),
    meant(
        "01",
        &[0],
        r"^\.(gitCommit|buildDate|goVersion|compiler)$",
        "another program was built, elsewhere",
    ),
    meant("01", &[2], r"componentstatuses", "deprecated since 1.19, and there are no such components"),
    meant("01", &[6], r"^$", "our own checks"),
    meant(
        "01",
        &[8],
        r"^\.items\.(apiregistration|flowcontrol\.apiserver)\.k8s\.io$",
        "no API aggregation, no flow control in an embedded server",
    ),
    meant(
        "01",
        &[8],
        r"^\.items\.metrics\.k8s\.io$",
        "the node's figures are served without a metrics server",
    ),
    meant("02", &[2], r"^\.status\.userInfo\.(uid|username)$", "the administrator has another name"),
    meant("02", &[3, 5], r"^\.metadata\.managedFields$", "a review is not stored, so nobody owns its fields"),
    meant("04", &[15, 28], r"[.:]schedulingGates$", "an empty list stays an empty list"),
    meant(
        "04",
        &[18],
        r"^(\.details\.causes\[0\])?\.message$",
        "the difference of the two specs in Go's notation is left out",
    ),
    meant("04", &[1, 2], r"managedFields\.kube-scheduler/status$", "no scheduler runs in this test"),
    meant(
        "04",
        &[17, 19, 20, 28, 37],
        r"managedFields\.kube-scheduler/status$|\.status\.conditions$",
        "no scheduler runs in this test",
    ),
    meant(
        "06",
        &[10, 11, 14, 15],
        r"metadata\.annotations$|managedFields\.kube-controller-manager/status$|^\.status\.conditions$",
        "no deployment controller runs in this test",
    ),
    meant(
        "06",
        &[14, 15],
        r"managedFields\.unknown/status$|^\.status\.(replicas|observedGeneration|(terminating|unavailable)Replicas)$",
        "no deployment controller replaces what the scale step wrote into the status",
    ),
    meant("06", &[10, 11, 14, 15], r"managedFields\.unknown/scale\.time$", "every entry has its time"),
    meant(
        "07",
        &[0, 2],
        r"managedFields\.unknown/\.fieldsV1\.f:spec\.f:names\.\.$",
        "the names of a definition are owned as a whole, too",
    ),
    meant("07", &[26], r"managedFields\.unknown/scale\.time$", "every entry has its time"),
    meant(
        "07",
        &[26],
        r"^\.metadata\.continue$",
        "an empty continue token is left out, as in lists of built-in kinds",
    ),
    meant(
        "08",
        &[3, 4],
        r"^\.metadata\.remainingItemCount$",
        "the recorded cluster had one more config map of its own",
    ),
    meant(
        "08",
        &[12],
        r"^\[\d+\]\.(type|object\.(data|metadata))\b",
        "kube-root-ca.crt comes with the namespace, not later from a controller: each event is one place off",
    ),
    meant(
        "09",
        &[9],
        r"^\.(status|code|details|kind|message|reason|spec|metadata\.\w+)$",
        "no namespace controller runs in this test: the namespace is still there",
    ),
    meant(
        "09",
        &[14],
        r"managedFields\.unknown/\.fieldsV1\.f:(data|stringData)$",
        "ownership is written down before stringData moves into data",
    ),
    meant(
        "09",
        &[17],
        r"managedFields\.kube-(apiserver|controller-manager)/status$",
        "no quota controller: the server counts by itself",
    ),
    meant(
        "10",
        &[2, 3, 7, 9, 10],
        r"managedFields\.kube-controller-manager/status$",
        "no job controller runs in this test",
    ),
    meant(
        "10",
        &[2, 7, 9, 10],
        r"^\.status\.(active|conditions|ready|startTime|terminating|uncountedTerminatedPods)$",
        "no job controller runs in this test",
    ),
    meant(
        "10",
        &[3],
        r"^\.rows\.j\.cells\[3\]$",
        "no job controller runs in this test: no start, no duration",
    ),
    meant("10", &[4], r"^\.items$", "no job controller runs in this test: no pods"),
    meant(
        "10",
        &[21],
        r"^\.rows\.(d|j|p2|j-\d-\w{5})\.[0-9a-f]{16}$",
        "events of controllers that do not run in this test",
    ),
    meant(
        "10",
        &[18, 19, 20, 21],
        r"fieldsV1\.f:(deprecated\w+|eventTime|(first|last)Timestamp|reporting\w+|source)$",
        "times and sources that are null or empty count as given",
    ),
    meant(
        "10",
        &[24, 25, 26],
        r"\.status\.conditions\[0\]\.message$|managedFields\.unknown/status\..*\.f:message$",
        "an empty text stays an empty text",
    ),
];
