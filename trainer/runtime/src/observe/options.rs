//! Options of what people see of a training.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What people see of a training beside the lines of metrics.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Watching")]
pub(crate) struct Observing {
    /// Folder for TensorBoard's event files, which rank 0 writes; the gradients' norm is there with --clip-norm.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) tensorboard: Option<PathBuf>,
    /// Serves Prometheus metrics of this rank, at PORT (127.0.0.1) or ADDRESS:PORT; of ranks that share an address, the
    /// others take the ports that follow, and say which.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Chrome trace of a few steps, for Perfetto or chrome://tracing. Of several ranks, rank 2 writes FILE with -rank2
    /// before its extension; `jq -s add trace-rank*.json > all.json` puts them side by side.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Steps in the trace.
    #[arg(long, default_value_t = 20, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) profile_steps: u64,
    /// Steps before those in the trace.
    #[arg(long, default_value_t = 5, value_name = "STEPS")]
    pub(crate) profile_skip: u64,
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        Err(_) => text.parse(),
    };
    match address {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => Err("needs a port other than 0".into()),
        Err(_) => Err("expected a port or an address with a port, such as 9404 or 0.0.0.0:9404".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_served_on_the_loopback_unless_told_otherwise() {
        assert_eq!(parse_address("9404"), Ok(SocketAddr::from(([127, 0, 0, 1], 9404))));
        assert_eq!(parse_address("0.0.0.0:1"), Ok(SocketAddr::from(([0, 0, 0, 0], 1))));
        assert_eq!(parse_address("[::1]:9404").map(|address| address.is_ipv6()), Ok(true));
        for wrong in ["", "0", "127.0.0.1", "localhost:9404", "70000", "127.0.0.1:0"] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }
}
