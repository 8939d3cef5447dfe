//! Ranks that show each other certificates: what they then can do, and what keeps others out.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use muster_collectives::{Communicator, Error, LossCause, Options, Reduction, TlsFiles, Token};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::{Authority, Validity};
use crate::support::{call_on, failure, on_host, on_hosts, options, unused_address};

/// Connects ranks 0 and 1 with such files, and gives the errors of both.
fn errors_between(files: [Option<TlsFiles>; 2], tokens: [&str; 2]) -> [String; 2] {
    let address = unused_address();
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let ranks = [0, 1].map(|rank| {
            let mut options = options(directory.path(), rank, 2);
            on_host(&mut options, directory.path(), rank, &address);
            let network = options.network.as_mut().unwrap();
            network.tls.clone_from(&files[rank]);
            network.token = Token::new(tokens[rank]);
            // Rank 0 waits so long for another rank 1; the one that is wrong need not wait.
            options.join_deadline = Duration::from_secs([3, 60][rank]);
            scope.spawn(move || Communicator::connect(&options).unwrap_err().to_string())
        });
        ranks.map(|rank| rank.join().unwrap())
    })
}

/// What both ranks must say of their connection.
#[track_caller]
fn assert_told(errors: &[String; 2], leader: &str, other: &str) {
    let [first, second] = errors;
    assert!(first.starts_with("rank 1 of 2 did not join at 127."), "{first}");
    assert!(first.contains(leader), "{first}");
    assert!(second.contains(other), "{second}");
}

#[test]
fn ranks_with_and_without_certificates_tell_each_other() {
    let authority = Authority::new();
    let files = Some(authority.files());
    assert_told(
        &errors_between([files.clone(), None], ["", ""]),
        "(refused: rank 1 on host-1 at 127.",
        "rank 0 refused rank 1: rank 1 on host-1 at 127.",
    );
    assert_told(
        &errors_between([None, files], ["", ""]),
        "which calls itself rank 1 on host-1: it has certificates, but this rank has none)",
        "under TLS: it has no certificates: give some to all ranks of the group, or to none",
    );
}

#[test]
fn certificates_of_another_authority_are_named_on_both_sides() {
    let authority = Authority::new();
    let right = || Some(authority.files());
    // One that has another name, and one that was made anew under the same.
    for other in [Authority::called("another"), Authority::new()] {
        assert_told(
            &errors_between([right(), Some(other.files())], ["", ""]),
            "which calls itself rank 1 on host-1: it was given another authority than that of this rank's certificate",
            "its certificate is not from the authority that this rank was given",
        );
        // Believes the right one, but is certified by another.
        let confused = TlsFiles { authority: authority.files().authority, ..other.files() };
        assert_told(
            &errors_between([right(), Some(confused)], ["", ""]),
            "which calls itself rank 1 on host-1: its certificate is not from the authority that this rank was given",
            "it was given another authority than that of this rank's certificate",
        );
    }
}

#[test]
fn expired_certificates_are_named_on_both_sides() {
    let authority = Authority::new();
    let expired = Some(authority.certify("expired", Validity::Past));
    assert_told(
        &errors_between([Some(authority.files()), expired.clone()], ["", ""]),
        "which calls itself rank 1 on host-1: its certificate has expired",
        "it finds that this rank's certificate has expired",
    );
    let errors = errors_between([expired, Some(authority.files())], ["", ""]);
    assert_told(&errors, "it finds that this rank's certificate has expired", "its certificate has expired");
    assert!(errors[1].starts_with("rank 1 cannot talk with rank 0 at 127."), "{}", errors[1]);
}

#[test]
fn a_certificate_does_not_stand_for_the_token() {
    let authority = Authority::new();
    let files = || Some(authority.files());
    assert_told(
        &errors_between([files(), files()], ["right", "wrong"]),
        "it does not know the group's token",
        "rank 0 refused rank 1: ",
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let right = authority.files();
    let error = |files: TlsFiles| {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(directory.path(), 0, 2);
        on_host(&mut options, directory.path(), 0, &unused_address());
        options.network.as_mut().unwrap().tls = Some(files);
        Communicator::connect(&options).unwrap_err().to_string()
    };
    let missing = error(TlsFiles { key: authority.folder().join("none.key"), ..right.clone() });
    assert!(missing.starts_with("the certificates of this rank: cannot read /"), "{missing}");
    assert!(missing.contains("none.key: No such file"), "{missing}");
    let swapped = error(TlsFiles { certificate: right.key.clone(), ..right.clone() });
    assert!(swapped.contains("rank.key holds no certificate in PEM"), "{swapped}");
    let swapped = error(TlsFiles { key: right.certificate.clone(), ..right.clone() });
    assert!(swapped.contains("rank.pem holds no private key in PEM"), "{swapped}");
    let mixed = error(TlsFiles { key: other.files().key, ..right });
    assert!(mixed.contains("rank.pem cannot be used with the key"), "{mixed}");
}

#[test]
fn strangers_without_certificates_keep_nobody_out() {
    let authority = Authority::new();
    let strangers = Mutex::new(Vec::new());
    let send_strangers = |options: &mut Options| {
        authority.secure(options);
        if options.rank == 0 {
            return;
        }
        // Rank 0 is on its way; they come before the others do.
        let address = &options.network.as_ref().unwrap().address;
        let call = || call_on(address);
        let silent = call();
        // Of the right form, but followed by no handshake.
        let preface = [&[10, 0, 0xff, 1, 0, 0, 0, 4][..], b"host"].concat();
        let mut garbled = call();
        garbled.write_all(&preface).unwrap();
        garbled.write_all(&[0x16; 300]).unwrap();
        let mut stuck = call();
        stuck.write_all(&preface).unwrap();
        let mut empty = call();
        empty.write_all(&[0, 0]).unwrap();
        strangers.lock().unwrap().extend([silent, garbled, stuck, empty]);
    };
    on_hosts(&[0, 1, 2], send_strangers, |mut group| group.barrier().unwrap());
}

/// Passes on what a rank and rank 0 say until one has answered the other, with a certificate of the group's authority
/// towards both.
fn impersonate(caller: TcpStream, target: TcpStream, files: &TlsFiles) {
    let chain = || vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
    let key = || PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain(), key())
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(), key())
        .unwrap();
    let (mut caller, mut target) = (caller, target);
    let mut challenge = [0; 47];
    target.read_exact(&mut challenge).unwrap();
    caller.write_all(&challenge).unwrap();
    pass_frame(&mut caller, &mut target);
    let name = ServerName::try_from("rank-0").unwrap();
    let mut caller = StreamOwned::new(ServerConnection::new(Arc::new(server)).unwrap(), caller);
    let mut target = StreamOwned::new(ClientConnection::new(Arc::new(client), name).unwrap(), target);
    pass_frame(&mut caller, &mut target);
    pass_frame(&mut target, &mut caller);
}

/// Passes on a message behind its length.
fn pass_frame(from: &mut impl Read, to: &mut impl Write) {
    let mut length = [0; 2];
    from.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_le_bytes(length))];
    from.read_exact(&mut message).unwrap();
    to.write_all(&[&length[..], &message].concat()).unwrap();
    to.flush().unwrap();
}

#[test]
fn a_certificate_without_the_token_does_not_help_who_sits_between_ranks() {
    let authority = Authority::new();
    let intruder = authority.certify_for("intruder", "rank-0");
    let address = unused_address();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let rank = |rank: usize, address: &str| {
            let mut options = options(directory.path(), rank, 2);
            on_host(&mut options, directory.path(), rank, address);
            let network = options.network.as_mut().unwrap();
            network.tls = Some(authority.certify_for(&format!("rank-{rank}"), "rank-0"));
            network.token = Token::new("known to ranks alone");
            options.join_deadline = Duration::from_secs([3, 60][rank]);
            scope.spawn(move || Communicator::connect(&options).unwrap_err().to_string())
        };
        let ranks = [rank(0, &address), rank(1, &between)];
        scope.spawn(|| {
            let (caller, _) = listener.accept().unwrap();
            impersonate(caller, call_on(&address), &intruder);
        });
        let [first, second] = ranks.map(|rank| rank.join().unwrap());
        assert!(first.contains("it does not know the group's token"), "{first}");
        assert!(second.starts_with("rank 0 refused rank 1: "), "{second}");
        assert!(second.contains("it does not know the group's token"), "{second}");
    });
}

#[test]
fn a_handshake_that_comes_byte_by_byte_ends_at_the_deadline() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path(), 1, 2);
    on_host(&mut options, directory.path(), 1, &listener.local_addr().unwrap().to_string());
    authority.secure(&mut options);
    options.join_deadline = Duration::from_secs(1);
    let (ended, end) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut caller, _) = listener.accept().unwrap();
            let challenge = [&b"MUSTERNT"[..], &3_u32.to_le_bytes(), &1_u16.to_ne_bytes(), &[1], &[9; 32]];
            caller.write_all(&challenge.concat()).unwrap();
            // A record of the handshake that is announced, but never there.
            let record = [&[0x16, 3, 3, 0x3f, 0xff][..], &[2; 0x3fff]].concat();
            for byte in record {
                let is_over =
                    end.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Disconnected);
                if is_over || caller.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
        let error = Communicator::connect(&options).unwrap_err();
        drop(ended);
        assert!(matches!(error, Error::NoRendezvous { .. }), "{error}");
    });
}

/// One that sits between rank 1 and rank 0, sees what they send, and can change it.
struct Eavesdropper {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    changes: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Eavesdropper {
    fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, changes, ends) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (seen, changes, ends) = (Arc::clone(&seen), Arc::clone(&changes), Arc::clone(&ends));
            std::thread::spawn(move || {
                let mut threads = Vec::new();
                for caller in listener.incoming() {
                    if ends.load(Ordering::SeqCst) {
                        break;
                    }
                    let caller = caller.unwrap();
                    // As long as rank 0 is not there, nobody is.
                    let Ok(target) = TcpStream::connect(&target) else { continue };
                    for (from, to) in [(&caller, &target), (&target, &caller)] {
                        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                        let (seen, changes) = (Arc::clone(&seen), Arc::clone(&changes));
                        threads.push(std::thread::spawn(move || pass_on(from, to, &seen, &changes)));
                    }
                }
                for thread in threads {
                    thread.join().unwrap();
                }
            })
        };
        Self { address, seen, changes, ends, thread }
    }

    /// All that was sent, once both sides are gone.
    fn end(self) -> Vec<u8> {
        self.ends.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address).unwrap());
        self.thread.join().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<u8>>, changes: &AtomicBool) {
    let mut chunk = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if changes.load(Ordering::SeqCst) {
            chunk[count - 1] ^= 1;
        }
        seen.lock().unwrap().extend_from_slice(&chunk[..count]);
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// What somebody between two ranks sees, and what they get when it changes what they send.
fn listened_to(tls: Option<TlsFiles>) -> (Vec<u8>, Vec<Option<Error>>) {
    let address = unused_address();
    let eavesdropper = Eavesdropper::before(address.clone());
    let directory = tempfile::tempdir().unwrap();
    let secret = [0x5e_u8; 1000];
    let both = Barrier::new(2);
    let errors = std::thread::scope(|scope| {
        let ranks = [0, 1].map(|rank| {
            let mut options = options(directory.path(), rank, 2);
            let address = [address.clone(), eavesdropper.address.to_string()][rank].clone();
            on_host(&mut options, directory.path(), rank, &address);
            options.network.as_mut().unwrap().tls.clone_from(&tls);
            let (changes, both) = (&eavesdropper.changes, &both);
            scope.spawn(move || {
                let mut group = Communicator::connect(&options).unwrap();
                let mut data = if rank == 0 { secret } else { [0; 1000] };
                group.broadcast(&mut data, 0).unwrap();
                assert_eq!(data, secret);
                group.barrier().unwrap();
                options.network.as_ref().unwrap().tls.is_some().then(|| {
                    both.wait();
                    changes.store(true, Ordering::SeqCst);
                    failure(group.broadcast(&mut data, 0).and_then(|()| group.barrier()))
                })
            })
        });
        ranks.map(|rank| rank.join().unwrap())
    });
    (eavesdropper.end(), errors.into())
}

#[test]
fn nobody_between_two_ranks_can_read_or_change_what_they_send() {
    let holds_secret = |seen: &[u8]| seen.windows(64).any(|window| window == [0x5e; 64]);
    let (seen, _) = listened_to(None);
    assert!(holds_secret(&seen), "without certificates all of it can be seen");
    let authority = Authority::new();
    let (seen, errors) = listened_to(Some(authority.files()));
    assert!(seen.len() > 1000 && !holds_secret(&seen));
    for error in errors {
        let error = error.unwrap();
        assert!(
            matches!(error, Error::PeerLost { cause: LossCause::Garbled | LossCause::Died, .. }),
            "{error}"
        );
    }
}

#[test]
fn large_and_small_reductions_give_the_same_bits_under_tls() {
    let authority = Authority::new();
    let reduce = |mut group: Communicator| {
        let mut bits = Vec::new();
        for count in [1, 1000, 16_384, 100_003, (3 << 20) + 1] {
            let mut data: Vec<f32> =
                (0..count).map(|index| ((index * 7919 + group.rank() * 104_729) as f32).sin()).collect();
            group.all_reduce_staged(&mut data, Reduction::Sum).unwrap();
            bits.push(data.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        }
        bits
    };
    let plain = on_hosts(&[0, 0, 1, 2], |_| (), reduce);
    let secured = on_hosts(&[0, 0, 1, 2], |options| authority.secure(options), reduce);
    assert!(plain == secured);
}
