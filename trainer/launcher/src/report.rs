//! What is told of a failure: to people, to torch's tools, and to the pod's status. Pure but for the writing of files.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::worker::End;

/// What kubelets keep of a termination message, in bytes.
const LONGEST_MESSAGE: usize = 4096;
/// A worker's own description is not longer, or is none.
const LONGEST_DESCRIPTION: u64 = 1 << 20;

/// The worker that failed first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) rank: usize,
    pub(crate) local_rank: usize,
    pub(crate) host: String,
    pub(crate) end: End,
    /// Since its start.
    pub(crate) after: Duration,
    pub(crate) at: Timestamp,
    /// The signal by which the workers had been asked to stop before.
    pub(crate) asked: Option<Signal>,
    /// The kernel killed for want of memory meanwhile.
    pub(crate) out_of_memory: bool,
    /// What the worker wrote to its `TORCHELASTIC_ERROR_FILE`, as torch's `@record` does.
    pub(crate) description: Option<Value>,
    /// Of its standard error.
    pub(crate) last_lines: Vec<String>,
}

impl Failure {
    /// Who, where, how and when.
    pub(crate) fn headline(&self) -> String {
        let Self { rank, local_rank, host, end, .. } = self;
        let asked = self.asked.map(|signal| format!(", asked to stop by {signal},")).unwrap_or_default();
        let after = self.after.as_secs_f64();
        format!(
            "rank {rank} (local rank {local_rank}) on {host}{asked} failed after {after:.1} s, at {:.0}: {end}",
            self.at
        )
    }

    /// The headline and what explains it, in lines.
    pub(crate) fn text(&self) -> String {
        let mut text = self.headline();
        self.add_explanations(&mut text);
        add_last_lines(&mut text, &self.last_lines);
        text
    }

    fn add_explanations(&self, text: &mut String) {
        if self.out_of_memory {
            text.push_str(
                "\n  the kernel killed for want of memory: the pod reached its limit (resources.limits.memory)",
            );
        }
        if let Some(message) = self.message() {
            let _ = write!(text, "\n  it says: {message}");
        }
    }

    /// The text, without its first last lines where a pod's status has no room for them.
    pub(crate) fn termination_message(&self) -> String {
        let mut head = self.headline();
        self.add_explanations(&mut head);
        let text = |kept: usize| {
            let mut text = head.clone();
            add_last_lines(&mut text, &self.last_lines[self.last_lines.len() - kept..]);
            text
        };
        let fitting = (0..=self.last_lines.len()).rev().map(text).find(|text| text.len() <= LONGEST_MESSAGE);
        fitting.unwrap_or_else(|| head[..head.floor_char_boundary(LONGEST_MESSAGE)].to_owned())
    }

    /// The worker's own words.
    fn message(&self) -> Option<&str> {
        let message = &self.description.as_ref()?["message"];
        message.as_str().or_else(|| message["message"].as_str())
    }

    /// In the form of torch's error files, with more beside it.
    pub(crate) fn json(&self) -> Value {
        let own = self.description.as_ref().map(|description| &description["message"]);
        let extra = own.map(|own| &own["extraInfo"]).filter(|extra| extra.is_object()).cloned();
        let seconds = self.at.as_second().to_string();
        json!({
            "message": {
                "message": self.message().map_or_else(|| self.headline(), str::to_owned),
                "errorCode": self.end.exit_code(),
                "extraInfo": extra.unwrap_or_else(|| json!({"timestamp": seconds})),
            },
            "rank": self.rank,
            "localRank": self.local_rank,
            "host": self.host,
            "exitCode": self.end.exit_code(),
            "signal": self.end.signal(),
            "outOfMemory": self.out_of_memory,
            "time": self.at.to_string(),
            "afterSeconds": self.after.as_secs_f64(),
            "lastLines": self.last_lines,
        })
    }
}

fn add_last_lines(text: &mut String, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    text.push_str("\n  last lines of its standard error:");
    for line in lines {
        let _ = write!(text, "\n    {line}");
    }
}

/// What a worker wrote of its failure, if that can be understood.
pub(crate) fn description(file: &Path) -> Option<Value> {
    let size = fs::metadata(file).ok()?.len();
    if size > LONGEST_DESCRIPTION {
        return None;
    }
    let value: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    value.get("message")?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure {
            rank: 5,
            local_rank: 1,
            host: "job-worker-1".into(),
            end: End::Code(3),
            after: Duration::from_millis(12_340),
            at: Timestamp::from_second(1_700_000_000).unwrap(),
            asked: None,
            out_of_memory: false,
            description: None,
            last_lines: vec!["Traceback:".into(), "  ValueError".into()],
        }
    }

    #[test]
    fn a_failure_is_told_to_people() {
        let expected = "rank 5 (local rank 1) on job-worker-1 failed after 12.3 s, at 2023-11-14T22:13:20Z: exit code 3\n  \
                        last lines of its standard error:\n    Traceback:\n      ValueError";
        assert_eq!(failure().text(), expected);
        let killed = Failure {
            end: End::Signal { number: 9, dumped: false },
            out_of_memory: true,
            asked: Some(Signal::SIGTERM),
            description: Some(json!({"message": {"message": "too much"}})),
            last_lines: vec![],
            ..failure()
        };
        let expected = "rank 5 (local rank 1) on job-worker-1, asked to stop by SIGTERM, failed after 12.3 s, at \
                        2023-11-14T22:13:20Z: killed by SIGKILL\n  the kernel killed for want of memory: the pod reached its \
                        limit (resources.limits.memory)\n  it says: too much";
        assert_eq!(killed.text(), expected);
        assert_eq!(killed.termination_message(), expected);
    }

    #[test]
    fn torch_can_read_it() {
        let plain = failure().json();
        assert_eq!(plain["message"]["message"], failure().headline());
        assert_eq!(plain["message"]["errorCode"], 3);
        assert_eq!(plain["message"]["extraInfo"]["timestamp"], "1700000000");
        assert_eq!(plain["signal"], Value::Null);
        assert_eq!(plain["lastLines"], json!(["Traceback:", "  ValueError"]));
        let recorded =
            json!({"message": {"message": "ValueError: no", "extraInfo": {"py_callstack": "..."}}});
        let recorded = Failure { description: Some(recorded), ..failure() }.json();
        let expected =
            json!({"message": "ValueError: no", "errorCode": 3, "extraInfo": {"py_callstack": "..."}});
        assert_eq!(recorded["message"], expected);
    }

    #[test]
    fn the_status_of_a_pod_gets_what_it_has_room_for() {
        let long = Failure { last_lines: (0..100).map(|n| format!("{n:0>99}")).collect(), ..failure() };
        let message = long.termination_message();
        assert!(message.len() <= LONGEST_MESSAGE && message.len() > LONGEST_MESSAGE - 200);
        assert!(message.starts_with(&long.headline()) && message.ends_with("99"));
        let huge = json!({"message": "ü".repeat(LONGEST_MESSAGE)});
        let message = Failure { description: Some(huge), ..failure() }.termination_message();
        assert!(message.len() <= LONGEST_MESSAGE && message.starts_with(&failure().headline()));
    }

    #[test]
    fn only_torch_like_descriptions_count() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("error.json");
        assert_eq!(description(&file), None);
        for wrong in ["", "{", "{}", "3"] {
            fs::write(&file, wrong).unwrap();
            assert_eq!(description(&file), None, "{wrong}");
        }
        fs::write(&file, r#"{"message": "text"}"#).unwrap();
        assert_eq!(description(&file), Some(json!({"message": "text"})));
    }
}
