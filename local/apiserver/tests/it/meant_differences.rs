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
    meant("", &[], r"\.columnDefinitions\[\d+\]\.description$", "columns are described in our own words"),
    meant("01", &[0], r"^\.(gitCommit|buildDate|goVersion|compiler)$", "another program was built, elsewhere"),
];
