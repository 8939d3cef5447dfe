//! Waiting for the hosts of a hostfile.

use std::time::Duration;

use futures::future::try_join_all;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::Error;

/// How often a host is asked for.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one host may take to answer before it is asked again.
const PATIENCE: Duration = Duration::from_secs(3);

/// The hosts of a hostfile, of Open MPI (`host slots=2`) or Hydra (`host:2`), without those that are excepted.
pub(super) fn hosts(hostfile: &str, except: &[String]) -> Vec<String> {
    let lines = hostfile.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let hosts = lines.filter_map(|line| line.split([' ', '\t', ':']).next()).filter(|host| !host.is_empty());
    let is_excepted = |host: &&str| {
        let label = host.split('.').next().unwrap_or_default();
        except.iter().any(|other| other == label)
    };
    hosts.filter(|host| !is_excepted(host)).map(str::to_owned).collect()
}

/// Returns once every host has an address, and answers on the port.
pub(super) async fn wait(hosts: &[String], port: Option<u16>, patience: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    try_join_all(hosts.iter().map(|host| wait_for(host, port, deadline))).await.map(drop)
}

async fn wait_for(host: &str, port: Option<u16>, deadline: Instant) -> Result<(), Error> {
    loop {
        let began = Instant::now();
        let Err(why) = answers(host, port).await else { return Ok(()) };
        if began + PAUSE >= deadline {
            return Err(Error::new(format!("host {host} {why}")).with_hint("do all workers run?"));
        }
        sleep_until(began + PAUSE).await;
    }
}

/// What is wrong with the host, if anything is.
async fn answers(host: &str, port: Option<u16>) -> Result<(), String> {
    let addresses = timeout(PATIENCE, lookup_host((host, port.unwrap_or(0)))).await;
    let addresses = addresses.map_err(|_| "is looked up without an answer".to_owned())?;
    let mut addresses = addresses.map_err(|error| format!("cannot be found: {error}"))?;
    let address = addresses.next().ok_or("has no address")?;
    if port.is_none() {
        return Ok(());
    }
    let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
    let connected = connected.map_err(|_| format!("does not answer on {address}"))?;
    connected.map(drop).map_err(|error| format!("does not answer on {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostfiles_of_both_kinds_are_read() {
        let open_mpi = "pi-launcher.pi.t.svc slots=2\n# none\npi-worker-0.pi.t.svc slots=2\n\n";
        assert_eq!(hosts(open_mpi, &["pi-launcher".to_owned()]), ["pi-worker-0.pi.t.svc"]);
        assert_eq!(hosts("a.b:4\nc\t# last\n", &[]), ["a.b", "c"]);
    }

    #[tokio::test]
    async fn a_host_is_waited_for_until_it_answers_or_the_time_is_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = ["127.0.0.1".to_owned()];
        wait(&host, None, Duration::ZERO).await.unwrap();
        wait(&host, Some(port), Duration::ZERO).await.unwrap();
        drop(listener);
        let refused = wait(&host, Some(port), Duration::ZERO).await.unwrap_err();
        assert!(refused.message().starts_with("host 127.0.0.1 does not answer on 127.0.0.1:"), "{refused}");
        let unknown = wait(&["no-such-host.invalid".to_owned()], None, Duration::ZERO).await.unwrap_err();
        assert!(unknown.message().starts_with("host no-such-host.invalid cannot be found"), "{unknown}");
    }
}
