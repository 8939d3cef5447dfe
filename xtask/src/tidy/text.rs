//! What the files may contain.

use std::path::Path;

use super::Findings;

/// Lines of a Rust file.
const MOST_LINES: usize = 800;
const MANY_LINES: usize = 500;

/// Folders of somebody's machine, with a name below them. In pieces, or this file would break its own rule.
const PERSONAL_FOLDERS: [&str; 3] = [concat!("/", "home/"), concat!("/", "Users/"), concat!("/", "work/")];
/// Users of images, whose folders are part of what others publish.
const IMAGE_USERS: [&str; 1] = ["mpiuser"];
/// Marks that tools leave behind.
const TOOL_MARKS: [&str; 2] = [concat!("co-authored", "-by:"), concat!("generated ", "with [")];

/// Checks one file.
pub(super) fn check(file: &Path, text: &str, findings: &mut Findings) {
    let shown = file.display();
    if file.extension().is_some_and(|extension| extension == "rs") {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            findings.error(format!("{shown} has {lines} lines; split it ({MOST_LINES} at most)"));
        } else if lines > MANY_LINES {
            findings.warning(format!("{shown} has {lines} lines; most files need fewer than {MANY_LINES}"));
        }
    }
    for (index, line) in text.lines().enumerate() {
        let place = format!("{shown}:{}", index + 1);
        if PERSONAL_FOLDERS.iter().any(|folder| names_folder(line, folder)) {
            findings.error(format!("{place} names a folder of one machine"));
        }
        let lower = line.to_lowercase();
        if TOOL_MARKS.iter().any(|mark| lower.contains(mark)) {
            findings.error(format!("{place} carries the mark of a tool"));
        }
    }
}

/// Whether an absolute path below `folder` stands in the line: `a/work/b` is a relative one.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + folder.len()..].chars().next();
        let is_start = before.is_none_or(|letter| !(letter.is_alphanumeric() || "/._-}>".contains(letter)));
        let is_image = IMAGE_USERS.iter().any(|user| line[start + folder.len()..].starts_with(user));
        is_start && !is_image && after.is_some_and(|letter| letter.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(file: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(Path::new(file), text, &mut findings);
        findings.errors
    }

    #[test]
    fn long_files_are_told() {
        assert_eq!(errors("a.rs", &"\n".repeat(801)), ["a.rs has 801 lines; split it (800 at most)"]);
        assert!(errors("a.rs", &"\n".repeat(800)).is_empty());
        assert!(errors("a.json", &"\n".repeat(2000)).is_empty());
    }

    #[test]
    fn folders_of_one_machine_are_told() {
        let folder = PERSONAL_FOLDERS[0];
        assert_eq!(
            errors("a.md", &format!("see\n`{folder}ann/muster`")),
            ["a.md:2 names a folder of one machine"]
        );
        assert!(errors("a.md", &format!("https://host{folder}ann, {folder}$USER")).is_empty());
        assert!(errors("a.yaml", &format!("path: {folder}mpiuser/.ssh")).is_empty());
    }

    #[test]
    fn marks_of_tools_are_told() {
        assert_eq!(errors("a.md", &format!("{} someone", TOOL_MARKS[0].to_uppercase())).len(), 1);
    }
}
