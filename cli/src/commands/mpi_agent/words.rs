//! The command line of a remote shell, as MPI implementations write it. Pure.

use crate::error::{Error, USAGE};

/// Options of ssh that take a word.
const WITH_WORD: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// What to run where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// The host's first label, which is the pod's name.
    pub(super) pod: String,
    /// For a shell to read: ssh joins its words too, and those who call it count on that.
    pub(super) command: String,
    /// Whether the command is given nothing to read.
    pub(super) without_input: bool,
}

/// Reads `[OPTIONS] [USER@]HOST COMMAND...`; options say how to get to the host, which is not by SSH here.
pub(super) fn parse(words: &[String]) -> Result<Remote, Error> {
    let usage = || Error::new("the command line must be HOST COMMAND, as for ssh").with_code(USAGE);
    let mut without_input = false;
    let mut words = words.iter();
    let host = loop {
        let word = words.next().ok_or_else(usage)?;
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else { break word };
        if letters == "-" {
            break words.next().ok_or_else(usage)?;
        }
        // The first letter that takes a word takes the rest of this one, or the next.
        let takes = letters.find(|letter| WITH_WORD.contains(letter));
        let flags = takes.map_or(letters, |at| &letters[..at]);
        without_input |= flags.contains('n');
        if takes.is_some_and(|at| at + 1 == letters.len()) {
            words.next().ok_or_else(usage)?;
        }
    };
    let host = host.rsplit_once('@').map_or(host.as_str(), |(_, host)| host);
    let pod = host.split('.').next().unwrap_or_default().to_owned();
    let command = words.map(String::as_str).collect::<Vec<_>>().join(" ");
    if pod.is_empty() || command.is_empty() {
        return Err(usage());
    }
    Ok(Remote { pod, command, without_input })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Remote {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn command_lines_of_open_mpi_and_hydra_are_read() {
        let orted = parsed(&[
            "-o",
            "ConnectionAttempts=10",
            "-x",
            "pi-worker-0.pi.team.svc",
            "PATH=/usr/bin:$PATH ; export PATH ; orted",
            "-mca",
            "ess",
            "\"env\"",
        ]);
        assert_eq!(orted.pod, "pi-worker-0");
        assert_eq!(orted.command, "PATH=/usr/bin:$PATH ; export PATH ; orted -mca ess \"env\"");
        let proxy = parsed(&["-xn", "mpiuser@pi-worker-1", "\"/usr/bin/hydra_pmi_proxy\"", "--pgid", "0"]);
        assert_eq!(proxy.pod, "pi-worker-1");
        assert!(proxy.without_input && !orted.without_input);
        assert_eq!(proxy.command, "\"/usr/bin/hydra_pmi_proxy\" --pgid 0");
        assert_eq!(parsed(&["-p2222", "-lroot", "--", "h", "true"]).pod, "h");
    }

    #[test]
    fn what_names_no_host_or_command_is_refused() {
        for words in [vec![], vec!["-x"], vec!["host"], vec!["-o", "host"], vec!["-p", "1", "a@", "true"]] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert!(parse(&words).is_err(), "{words:?}");
        }
    }
}
