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
    match (name.as_str(), 0).to_socket_addrs() {
        Ok(addresses) => {
            let lines: String = addresses.map(|address| format!("Address: {}\n", address.ip())).collect();
            match output::print(&format!("Name: {name}\n{lines}")) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(_) => {
            output::note(&format!("nslookup: cannot resolve {name}"));
            ExitCode::FAILURE
        }
    }
}
