//! A small `nslookup` for pods on machines that have none: init containers wait with it for names.

use std::ffi::OsString;
use std::net::ToSocketAddrs;
use std::process::ExitCode;

use crate::output;

/// Looks the first word up as programs do (`getaddrinfo`).
pub(crate) fn run(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(name) = words.next().and_then(|word| word.into_string().ok()) else {
        output::note("usage: nslookup NAME");
        return ExitCode::from(crate::error::USAGE);
    };
    let Ok(addresses) = (name.as_str(), 0).to_socket_addrs() else {
        output::note(&format!("nslookup: cannot resolve {name}"));
        return ExitCode::FAILURE;
    };
    let lines: Vec<String> = addresses.map(|address| format!("Address: {}", address.ip())).collect();
    match output::print(&format!("Name: {name}\n{}\n", lines.join("\n"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
