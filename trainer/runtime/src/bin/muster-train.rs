//! `muster-train` on its own: what `muster train` runs, for images that hold nothing else.

use std::process::ExitCode;

use muster_trainer_runtime::run_words;

fn main() -> ExitCode {
    match run_words(std::env::args_os().collect()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the place for the cause; nothing is left to do if it is closed.
            let _ =
                std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("muster-train: {error}\n"));
            ExitCode::from(error.exit_code())
        }
    }
}
