//! `cargo xtask tidy`: the rules of the tree that no compiler checks.

mod dependencies;
mod text;

use anyhow::Result;
use fs_err as fs;

use crate::report;
use crate::workspace::Workspace;

/// What the rules have to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Broken rules.
    errors: Vec<String>,
    /// What will break one soon.
    warnings: Vec<String>,
}

impl Findings {
    fn error(&mut self, text: String) {
        self.errors.push(text);
    }

    fn warning(&mut self, text: String) {
        self.warnings.push(text);
    }
}

/// Says which rules the tree breaks; true when it breaks none.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let mut findings = Findings::default();
    for package in &workspace.packages {
        let folder = package.folder(workspace);
        dependencies::check(&folder.to_string_lossy(), package, &workspace.packages, &mut findings);
        if !inherits_lints(&fs::read_to_string(&package.manifest_path)?) {
            findings
                .error(format!("{}/Cargo.toml does not say `[lints] workspace = true`", folder.display()));
        }
    }
    check_documents(workspace, &mut findings)?;
    for file in workspace.files()? {
        // Data in other forms than text is nobody's to read.
        if let Ok(text) = String::from_utf8(fs::read(workspace.root.join(&file))?) {
            text::check(&file, &text, &mut findings);
        }
    }
    for warning in &findings.warnings {
        report::note(&format!("tidy: warning: {warning}"));
    }
    for error in &findings.errors {
        report::note(&format!("tidy: {error}"));
    }
    Ok(findings.errors.is_empty())
}

/// Papers that must be there, and a place in the architecture for every crate.
fn check_documents(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"] {
        if !workspace.root.join(name).is_file() {
            findings.error(format!("{name} is missing"));
        }
    }
    let architecture = workspace.root.join("ARCHITECTURE.md");
    if architecture.is_file() {
        let text = fs::read_to_string(architecture)?;
        for package in &workspace.packages {
            let folder = package.folder(workspace).to_string_lossy().into_owned();
            if !text.contains(&folder) {
                findings.error(format!("ARCHITECTURE.md does not name the crate {folder}"));
            }
        }
    }
    Ok(())
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()) == Some("workspace = true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lints_are_inherited_by_their_own_table_only() {
        assert!(inherits_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nname = \"a\"\n\n[lints.rust]\nunsafe_code = \"deny\"\n"));
        assert!(!inherits_lints("[dependencies]\nworkspace = true\n"));
    }
}
