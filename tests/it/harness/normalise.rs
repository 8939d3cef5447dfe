//! Takes out of a text what differs from run to run.

use std::sync::LazyLock;

use regex::Regex;

use super::Home;

static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( \+0000|Z|[+-]\d\d:\d\d)?", "<time>"),
        (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000", "<time>"),
        (r"\b\d\d:\d\d:\d\d\b", "<clock>"),
        (r"kube-api-access-[a-z0-9]{5}", "kube-api-access-<random>"),
        (r"\b[bcdf-hj-np-tv-xz2456789]{8,10}(-[bcdf-hj-np-tv-xz2456789]{5})?\b", "<hash>"),
        (r"-[bcdf-hj-np-tv-xz2456789]{5}\b", "-<random>"),
        (r"127\.0\.0\.1:\d+", "<address>"),
        (r"/tmp/(LIVE|MERGED)-\d+", "$1"),
        (r"Usage: \S+", "Usage: muster"),
        (r"\b10\.\d+\.\d+\.\d+\b", "<ip>"),
        (r"\(x\d+ over (\d+[smhd])+\)", ""),
        (r"(^|\s)(\d+[smhd])+(\s|$)", "$1<age>$3"),
        (r"(<age>\s+)\(<age>", "$1(<age>"),
        (r#"(?m)((resourceVersion|uid|generation)"?: )"?\d+"?"#, "$1<number>"),
        (r"isolation (full|light.*)", "isolation <kind>"),
        (r"\d+\.\d+ s\b", "<seconds> s"),
        (r"loss(=| )\d+\.\d+", "loss$1<loss>"),
        (r"process \d+", "process <pid>"),
    ]
    .map(|(pattern, shown)| (Regex::new(pattern).expect("pattern"), shown))
    .into()
});

static GAP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(\S) {2,}").expect("pattern"));

/// The text with what is random or timed replaced, and the columns of tables two spaces apart.
pub(crate) fn normalise(text: &str, home: &Home) -> String {
    let work = home.work().display().to_string();
    let root = home.path().display().to_string();
    let mut result = String::new();
    for line in text.replace(&root, "<home>").replace(&work, "<work>").lines() {
        let mut line = line.to_owned();
        for (pattern, shown) in PATTERNS.iter() {
            line = pattern.replace_all(&line, *shown).into_owned();
        }
        result += GAP.replace_all(&line, "$1  ").trim_end();
        result.push('\n');
    }
    result
}
