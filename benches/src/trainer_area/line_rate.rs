//! All-reduce between two hosts, pretended by network namespaces with a cable between them, beside what the same
//! processes move over plain connections.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::all_reduce::row;
use crate::area::Settings;

/// The share is the median over the rounds.
const ROUNDS: usize = 5;

const BYTES: usize = 64 << 20;

/// What the addresses of the two hosts begin with. The namespaces see nothing else, so that nobody else's can be meant.
const NETWORK: &str = "10.77.0.";

/// The share of the plain connections' rate that an all-reduce of registered memory reaches.
pub(super) async fn share(settings: &Settings) -> Result<Vec<f64>> {
    let hosts = Hosts::create().await?;
    let mut shares = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let [_, registered, bound] = measure(settings, &hosts).await?;
        crate::note(&format!(
            "64 MiB between two namespaces: all-reduce {:.1} ms, plain connections {:.1} ms",
            registered * 1e3,
            bound * 1e3
        ));
        shares.push(bound / registered);
    }
    shares.sort_unstable_by(f64::total_cmp);
    Ok(vec![shares[ROUNDS / 2]])
}

/// Seconds: staged, registered, and over plain connections.
async fn measure(settings: &Settings, hosts: &Hosts) -> Result<[f64; 3]> {
    let folder = tempfile::Builder::new().prefix("muster-bars-").tempdir()?;
    let ranks = [start(settings, hosts, &folder, 0)?, start(settings, hosts, &folder, 1)?];
    let mut tables = Vec::new();
    for rank in ranks {
        let output = rank.wait_with_output().await?;
        ensure!(output.status.success(), "muster bench allreduce ended with {}", output.status);
        tables.push(output.stdout);
    }
    row(&String::from_utf8_lossy(&tables[0])).context("muster bench allreduce printed no table")
}

fn start(settings: &Settings, hosts: &Hosts, folder: &TempDir, rank: usize) -> Result<Child> {
    let directory = folder.path().join(rank.to_string());
    fs_err::create_dir(&directory)?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &hosts.namespaces[rank]]).arg(&settings.muster);
    command.args(["bench", "allreduce", "--ranks", "2", "--sizes", &BYTES.to_string()]);
    command.args(["--rank", &rank.to_string(), "--directory"]).arg(directory);
    command.args(["--address", &format!("{NETWORK}1:29500")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    command.spawn().context("cannot start a rank")
}

/// Two network namespaces with a cable between them, gone with this value.
struct Hosts {
    namespaces: [String; 2],
}

impl Hosts {
    async fn create() -> Result<Self> {
        let process = std::process::id();
        let hosts = Self { namespaces: ["a", "b"].map(|host| format!("muster-bars-{process}-{host}")) };
        let [first, second] = &hosts.namespaces;
        for namespace in &hosts.namespaces {
            ip(&["netns", "add", namespace]).await?;
        }
        let cable = [
            "link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second,
        ];
        ip(&cable).await?;
        for (namespace, number) in hosts.namespaces.iter().zip(1..) {
            ip(&["-n", namespace, "address", "add", &format!("{NETWORK}{number}/24"), "dev", "cable"])
                .await?;
            ip(&["-n", namespace, "link", "set", "cable", "up"]).await?;
            ip(&["-n", namespace, "link", "set", "lo", "up"]).await?;
        }
        Ok(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // One that was not made is not there to go; the cable goes with either end.
            let _ = std::process::Command::new("ip")
                .args(["netns", "delete", namespace])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Runs `ip`, of iproute2, which root may.
async fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().await;
    let output = output.context("there is no `ip` to make network namespaces with: install iproute2")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot `ip {}`: {}", arguments.join(" "), error.trim());
    Ok(())
}
