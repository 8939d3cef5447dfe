//! Where the server's answers differ from the recorded ones, and why that is meant.

/// One kind of difference.
#[derive(Debug)]
pub(crate) struct Meant {
    /// Start of the recording's file name; empty for all.
    pub(crate) file: &'static str,
    /// Steps; empty for all.
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
    meant("", &[], r"columnDefinitions.*\.description$", "columns are described in our own words"),
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
        r"apiregistration|flowcontrol",
        "no API aggregation, no flow control in an embedded server",
    ),
    meant("01", &[8], r"autoscaling\.versions", "only autoscaling/v2 is served"),
    meant("01", &[8], r"metrics\.k8s\.io", "the node's figures are served without a metrics server"),
    meant("02", &[2], r"userInfo", "the administrator has another name"),
    meant("02", &[3, 5], r"managedFields", "a review is not stored, so nobody owns its fields"),
    meant("04", &[15, 28], r"schedulingGates", "an empty list stays an empty list"),
    meant("04", &[18], r"essage$", "the difference of the two specs in Go's notation is left out"),
    meant(
        "04",
        &[1, 2, 17, 19, 20, 28, 37],
        r"managedFields|status\.conditions",
        "no scheduler runs in this test",
    ),
    meant(
        "06",
        &[10, 11, 14, 15],
        r"annotations|status|managedFields",
        "no deployment controller runs in this test",
    ),
    meant(
        "07",
        &[0, 2],
        r"managedFields.*f:names\.\.$",
        "the names of a definition are owned as a whole, too",
    ),
    meant("07", &[26], r"managedFields.*\.time$", "every entry has its time"),
    meant(
        "07",
        &[26],
        r"metadata\.continue",
        "an empty continue token is left out, as in lists of built-in kinds",
    ),
    meant("08", &[3, 4], r"remainingItemCount", "the recorded cluster had one more config map of its own"),
    meant("08", &[12], r"", "kube-root-ca.crt comes with the namespace, not later from a controller"),
    meant("09", &[9], r"", "no namespace controller runs in this test"),
    meant("09", &[14], r"managedFields", "ownership is written down before stringData moves into data"),
    meant("09", &[17], r"managedFields", "no quota controller: the server counts by itself"),
    meant("10", &[2, 3, 4, 7, 9, 10, 12], r"", "no job controller runs in this test"),
    meant("10", &[21], r"rows", "events of controllers that do not run in this test"),
    meant("10", &[18, 19, 20, 21], r"managedFields", "times that are null count as given"),
    meant("10", &[24, 25, 26], r"message$", "an empty text stays an empty text"),
];
