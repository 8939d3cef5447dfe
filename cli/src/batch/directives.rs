//! The lines `#SBATCH` and `#MUSTER` of a script.

use clap::Parser;
use clap::error::ErrorKind;

use super::Options;
use crate::error::{Error, USAGE};

const MARKS: [&str; 2] = ["#SBATCH", "#MUSTER"];

/// What a script says of its job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    /// What was understood; where a script says something twice, the last counts.
    pub(crate) options: Options,
    /// What was not, each with its line.
    pub(crate) unsupported: Vec<(usize, String)>,
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
struct Line {
    #[command(flatten)]
    options: Options,
}

impl Directives {
    /// Reads the lines before the first command of a script; `name` is its file.
    pub(crate) fn read(name: &str, script: &str) -> Result<Self, Error> {
        let mut directives = Self::default();
        let comments = script.lines().take_while(|line| {
            let line = line.trim_start();
            line.is_empty() || line.starts_with('#')
        });
        for (number, line) in (1..).zip(comments) {
            let rest = MARKS.iter().find_map(|mark| line.strip_prefix(mark));
            let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
            else {
                continue;
            };
            let words = words(rest).ok_or_else(|| {
                Error::new(format!("{name}:{number}: a quotation mark has no other")).with_code(USAGE)
            })?;
            for option in options(words) {
                directives.add(name, number, &option)?;
            }
        }
        Ok(directives)
    }

    fn add(&mut self, name: &str, number: usize, words: &[String]) -> Result<(), Error> {
        match Line::try_parse_from(words) {
            Ok(line) => {
                let before = std::mem::take(&mut self.options);
                self.options = line.options.or(before);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnknownArgument => {
                self.unsupported.push((number, words.join(" ")));
                Ok(())
            }
            Err(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                let message = first.strip_prefix("error: ").unwrap_or(first);
                Err(Error::new(format!("{name}:{number}: {message}")).with_code(USAGE))
            }
        }
    }
}

/// The words of a line up to a comment.
fn words(line: &str) -> Option<Vec<String>> {
    shlex::split(line)
}

/// Options, each with the words that belong to it.
fn options(words: Vec<String>) -> Vec<Vec<String>> {
    let mut options: Vec<Vec<String>> = Vec::new();
    for word in words {
        match options.last_mut() {
            Some(option) if !word.starts_with('-') => option.push(word),
            _ => options.push(vec![word]),
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Allocation;

    #[test]
    fn both_marks_are_read_until_the_first_command() {
        let script = "#!/bin/bash\n#SBATCH -J \"a b\" -N1 -c 4\n#SBATCH --time=1:00:00   # an hour\n\n#MUSTER --array 0-9%2\n\
                      # a comment\n#SBATCHED -n 3\n#SBATCH -c 8\nsrun hostname\n#SBATCH -n 99\n";
        let Directives { options, unsupported } = Directives::read("job.sh", script).unwrap();
        let allocation = options.allocation;
        assert_eq!((allocation.job_name.as_deref(), allocation.nodes), (Some("a b"), Some(1)));
        assert_eq!((allocation.cpus_per_task, allocation.ntasks), (Some(8), None), "the last counts");
        assert_eq!(allocation.time, Some(crate::batch::options::Limit(Some(3600))));
        assert_eq!(options.array.map(|array| array.count()), Some(10));
        assert_eq!(unsupported, []);
    }

    #[test]
    fn what_is_not_supported_is_named_and_what_is_wrong_refused() {
        let script = "#!/bin/sh\n#SBATCH --licenses=matlab -n 2\n#SBATCH --exclusive\n";
        let directives = Directives::read("job.sh", script).unwrap();
        assert_eq!(directives.options.allocation.ntasks, Some(2));
        let unsupported = [(2, "--licenses=matlab".to_owned()), (3, "--exclusive".to_owned())];
        assert_eq!(directives.unsupported, unsupported);
        for (line, start) in [
            ("#SBATCH --time=soon", "job.sh:2: invalid value 'soon' for '--time <TIME>'"),
            ("#SBATCH --array", "job.sh:2: a value is required for '--array <TASKS>'"),
            ("#SBATCH -J 'a", "job.sh:2: a quotation mark"),
        ] {
            let error = Directives::read("job.sh", &format!("#!/bin/sh\n{line}\n")).unwrap_err();
            assert!(error.message().starts_with(start), "{}", error.message());
        }
    }

    #[test]
    fn the_command_line_comes_before_the_script() {
        let script =
            Directives::read("job.sh", "#!/bin/sh\n#SBATCH -n 2 -c 3 --requeue -H\n").unwrap().options;
        let allocation = Allocation { ntasks: Some(5), ..Allocation::default() };
        let line = Options { allocation, no_requeue: true, ..Options::default() };
        let both = line.or(script);
        let Allocation { ntasks, cpus_per_task, .. } = both.allocation;
        assert_eq!((ntasks, cpus_per_task, both.hold), (Some(5), Some(3), true));
        assert!(both.no_requeue && !both.requeue);
    }
}
