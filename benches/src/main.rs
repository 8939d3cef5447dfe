//! Every figure the project promises, measured on the program that ships: `muster-bars [AREA]`, one line each.
//! README.md says how an area is added.

mod area;
mod cluster;
mod figure;
mod hpc_area;
mod main_area;
mod process;
mod scheduler_area;
mod statistics;
mod trainer_area;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::area::{Area, Settings};
use crate::figure::Figure;

/// Measures what the project promises; exits with 1 when a figure is short of its bar
#[derive(Debug, Parser)]
struct Arguments {
    /// The part of the project [default: all]
    #[arg(value_enum)]
    area: Option<Area>,
    /// The program to measure [default: `muster` beside this one]
    #[arg(long, value_name = "FILE")]
    muster: Option<PathBuf>,
    /// The project's folder, for its examples
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    project: PathBuf,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Only the figures with these names
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Time a clean release build too, which takes minutes
    #[arg(long)]
    with_build: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// `area name figure bar holds|short`, one line each
    #[default]
    Text,
    /// One JSON array
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = tokio::runtime::Runtime::new().context("cannot start").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                result = measure(&arguments) => result,
                // What has been started is stopped as it is dropped.
                signal = muster_machinery::shutdown::stop_signal() => {
                    signal.context("cannot listen for signals")?;
                    anyhow::bail!("interrupted")
                }
            }
        })
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Measures and prints; true when every bar holds.
async fn measure(arguments: &Arguments) -> Result<bool> {
    let settings = Settings {
        muster: program(arguments)?,
        project: std::path::absolute(&arguments.project)?,
        with_build: arguments.with_build,
    };
    let mut figures: Vec<Figure> = Vec::new();
    let areas = arguments.area.map_or_else(|| Area::value_variants().to_vec(), |area| vec![area]);
    let names: Vec<&str> = areas.iter().flat_map(|area| area.names()).collect();
    for name in &arguments.only {
        ensure!(names.contains(&name.as_str()), "no figure is called {name}; there are {}", names.join(", "));
    }
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|other| other == name);
    for measurement in areas.iter().flat_map(|area| area.measurements()) {
        if !measurement.bars.iter().any(|bar| wanted(bar.name)) {
            continue;
        }
        for figure in measurement.take(&settings).await {
            if !wanted(figure.bar.name) {
                continue;
            }
            if let Err(cause) = &figure.value {
                note(&format!("{}: {cause}", figure.bar.name));
            }
            if arguments.output == Output::Text {
                print(&figure.line())?;
            }
            figures.push(figure);
        }
    }
    if arguments.output == Output::Json {
        print(&serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(figures.iter().all(Figure::holds))
}

fn program(arguments: &Arguments) -> Result<PathBuf> {
    let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("muster"));
    let program = match &arguments.muster {
        Some(program) => std::path::absolute(program)?,
        None => beside()?,
    };
    ensure!(program.is_file(), "{} is not there; build it or name it with --muster", program.display());
    Ok(program)
}

fn print(line: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{line}").context("cannot print")
}

fn note(text: &str) {
    let _written = writeln!(io::stderr().lock(), "{text}");
}
