//! Reports of progress to a server that stands for that of Kubeflow's trainer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::job::{Job, arguments, digits, text};

/// Takes reports on a thread of its own: its address, the certificate to trust, and what it was told with which token.
fn server() -> (String, String, Receiver<(String, Value)>) {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (issued.cert.der().clone(), issued.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key).unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = format!("https://localhost:{}/status", listener.local_addr().unwrap().port());
    let (sender, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
            let (mut token, mut length) = (String::new(), 0);
            for line in stream.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
                match line.split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                        value.clone_into(&mut token);
                    }
                    Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                        length = value.parse().unwrap();
                    }
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
            if sender.send((token, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, issued.cert.pem(), told)
}

#[test]
fn rank_0_reports_its_progress_up_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let (address, authority, told) = server();
    let (authority_file, token_file) = (folder.path().join("ca.crt"), folder.path().join("token"));
    fs_err::write(&authority_file, authority).unwrap();
    fs_err::write(&token_file, "the-pods-token\n").unwrap();
    let peers = tempfile::tempdir().unwrap();
    let mut job = Job::prepare(
        |_| arguments(&data, &["--epochs=2", "--seed=7"]),
        |command, rank| {
            command.env("MASTER_ADDR", "digits-master-0").env("MUSTER_PEERS_DIR", peers.path());
            command.env(
                "KUBEFLOW_TRAINER_SERVER_URL",
                if rank == 0 { &*address } else { "https://nowhere.invalid" },
            );
            command.env("KUBEFLOW_TRAINER_SERVER_CA_CERT", &authority_file);
            command.env("KUBEFLOW_TRAINER_SERVER_TOKEN", &token_file);
        },
    );
    (0..crate::job::WORLD_SIZE).for_each(|rank| job.start_rank(rank));
    for rank in 0..crate::job::WORLD_SIZE {
        let output = job.finish(rank);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!text(&output.stdout).contains("event=report-failed"), "{}", text(&output.stdout));
    }
    let last = loop {
        let (token, report) = told.recv_timeout(Duration::from_mins(1)).unwrap();
        assert_eq!(token, "Bearer the-pods-token");
        if report["trainerStatus"]["progressPercentage"] == 100 {
            break report;
        }
    };
    let status = &last["trainerStatus"];
    assert_eq!(
        (&status["progressPercentage"], &status["estimatedRemainingSeconds"]),
        (&100.into(), &0.into())
    );
    let names: Vec<_> = status["metrics"].as_array().unwrap().iter().map(|metric| &metric["name"]).collect();
    assert!(
        names.contains(&&Value::from("step_seconds")) && names.contains(&&Value::from("test_accuracy")),
        "{last}"
    );
}
