//! `muster train`, also called as `muster-train`.

use std::ffi::OsString;
use std::process::ExitCode;

use muster_trainer_runtime::{Error, Outcome};

use crate::output;

/// Runs the program as `muster-train` with these words.
pub(crate) fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    finish(muster_trainer_runtime::run_words(words.into_iter().collect()))
}

/// The exit code of a training.
pub(crate) fn finish(result: Result<Outcome, Error>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("muster-train: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
