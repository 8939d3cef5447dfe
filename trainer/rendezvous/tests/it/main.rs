//! The service and its members over real connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_rendezvous::{
    Admission, Bounds, Caller, Departure, Member, MemberError, MemberOptions, NotAdmitted, Placement,
    ServiceOptions, Watch,
};
use tokio_util::sync::CancellationToken;

use running::Running;

const LONG: Duration = Duration::from_mins(1);

/// A member of the service.
fn member(service: &Running, name: &str, bounds: Bounds) -> Member {
    Member::attend(options(service.address, name, bounds)).unwrap()
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn options(address: SocketAddr, name: &str, bounds: Bounds) -> MemberOptions {
    MemberOptions {
        addresses: vec![format!("http://{address}")],
        authority: None,
        token_file: None,
        member: name.into(),
        group: "digits".into(),
        host: name.into(),
        listens: format!("{name}:23456"),
        bounds,
        last_call: None,
        news: None,
    }
}

fn bounds(fewest: usize, most: usize) -> Bounds {
    Bounds { fewest, expected: fewest, most }
}

/// Places of all, which they wait for at the same time.
fn places(members: &[&Member], past: u64) -> Vec<Placement> {
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            members.iter().map(|member| scope.spawn(move || member.place(past, LONG).unwrap())).collect();
        waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn ranks(placements: &[Placement]) -> Vec<(u64, usize, usize)> {
    placements.iter().map(|placement| (placement.epoch, placement.rank, placement.world_size)).collect()
}

fn wait_for_departure(watch: &Watch) -> Departure {
    let began = std::time::Instant::now();
    loop {
        if let Some(departure) = watch.departure() {
            return departure;
        }
        assert!(began.elapsed() < LONG, "nobody tells of a departure");
        std::thread::yield_now();
    }
}

/// Until the members at work are asked to end their epoch.
fn wait_for_change(member: &Member, epoch: u64) {
    let began = std::time::Instant::now();
    while !member.is_change_wanted(epoch) {
        assert!(began.elapsed() < LONG, "nobody asks for a change");
        std::thread::yield_now();
    }
}

#[test]
fn members_come_and_go() {
    let service = Running::open(anywhere());
    let (first, second) = (member(&service, "a", bounds(2, 3)), member(&service, "b", bounds(2, 3)));
    let placements = places(&[&first, &second], 0);
    let mut found = ranks(&placements);
    found.sort_unstable();
    assert_eq!(found, [(1, 0, 2), (1, 1, 2)]);
    assert_eq!(placements[0].leader, placements[1].leader);

    let third = member(&service, "c", bounds(2, 3));
    wait_for_change(&first, 1);
    wait_for_change(&second, 1);
    let joined = places(&[&first, &second, &third], 1);
    assert_eq!(
        joined[2],
        Placement { epoch: 2, rank: 2, world_size: 3, leader: placements[0].leader.clone(), restarts: 0 }
    );
    assert_eq!(joined[0].rank, placements[0].rank, "who was there keeps the order");
    assert!(!first.is_change_wanted(2));

    // One is lost: the others hear of it, and say that their epoch has ended.
    let watch = second.watch(2);
    assert_eq!(watch.departure(), None);
    drop(first);
    let lost = Departure { epoch: 2, rank: joined[0].rank, host: "a".into(), has_left: true };
    assert_eq!(wait_for_departure(&watch), lost);
    let left = places(&[&second, &third], 2);
    assert_eq!(left.iter().map(|placement| placement.epoch).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(ranks(&left), [(3, 0, 2), (3, 1, 2)]);

    third.finish();
    let late = member(&service, "d", bounds(2, 3));
    assert_eq!(late.place(0, LONG), Err(MemberError::Over));
}

#[test]
fn trainings_do_not_mix() {
    let service = Running::open(anywhere());
    let own = member(&service, "a", bounds(1, 2));
    let other = MemberOptions { group: "other".into(), ..options(service.address, "b", bounds(1, 2)) };
    let other = Member::attend(other).unwrap();
    assert_eq!(ranks(&places(&[&own, &other], 0)), [(1, 0, 1), (1, 0, 1)]);
}

#[test]
fn a_service_that_is_started_again_goes_on_where_its_members_are() {
    let service = Running::open(anywhere());
    let address = service.address;
    let (first, second) = (member(&service, "a", bounds(2, 3)), member(&service, "b", bounds(2, 3)));
    places(&[&first, &second], 0);
    drop(service);
    let service = Running::open(address);
    let third = member(&service, "c", bounds(2, 3));
    wait_for_change(&first, 1);
    let mut found = ranks(&places(&[&first, &second, &third], 1));
    assert_eq!(found.pop(), Some((2, 2, 3)), "the newcomer comes last, and nobody began without the others");
    found.sort_unstable();
    assert_eq!(found, [(2, 0, 3), (2, 1, 3)]);
}

#[test]
fn members_leave_a_service_that_has_ended_though_its_process_lives() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serve = |listen: SocketAddr| {
        let options = ServiceOptions { comeback: Duration::from_millis(500), ..ServiceOptions::open(listen) };
        let bound = runtime.block_on(options.bind()).unwrap();
        let address = bound.address();
        // Whoever loses a lease drops what it does, without a word.
        (address, runtime.spawn(bound.run(CancellationToken::new())))
    };
    let (address, first_run) = serve(anywhere());
    let member = |name: &str| Member::attend(options(address, name, bounds(1, 2))).unwrap();
    let first = member("a");
    assert_eq!(ranks(&places(&[&first], 0)), [(1, 0, 1)]);
    first_run.abort();
    assert!(runtime.block_on(first_run).is_err());
    serve(address);
    let second = member("b");
    wait_for_change(&first, 1);
    let mut joined = ranks(&places(&[&first, &second], 1));
    joined.sort_unstable();
    assert_eq!(joined, [(2, 0, 2), (2, 1, 2)]);
}

#[test]
fn a_caller_who_cannot_be_told_yet_comes_again() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let admission: Admission = Arc::new(move |caller: Caller| {
        let is_first = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        let unknown = NotAdmitted::Unknown("the API server does not answer".into());
        Box::pin(async move { if is_first { Err(unknown) } else { Ok(caller.group) } })
    });
    let service = Running::start(ServiceOptions { admission, ..ServiceOptions::open(anywhere()) });
    assert_eq!(ranks(&places(&[&member(&service, "a", bounds(1, 1))], 0)), [(1, 0, 1)]);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn who_is_in_reserve_knows_it_and_takes_a_free_place() {
    let service = Running::open(anywhere());
    let (first, second) = (member(&service, "a", bounds(1, 1)), member(&service, "b", bounds(1, 1)));
    // Whoever came first.
    let patience = Duration::from_secs(2);
    let told = [first.place(0, patience), second.place(0, patience)];
    let (worker, reserve) = if told[0].is_ok() { (first, second) } else { (second, first) };
    let reserved = told.into_iter().find_map(Result::err).unwrap();
    assert!(matches!(reserved, MemberError::InReserve { .. }), "{reserved}");
    drop(worker);
    assert_eq!(reserve.place(0, LONG).unwrap().epoch, 2);
}

/// Until this rank has no place any more; why.
fn wait_for_end(member: &Member, past: u64) -> MemberError {
    member.place(past, LONG).unwrap_err()
}

#[test]
fn a_failure_begins_an_epoch_as_often_as_it_may_and_is_told_to_all() {
    let service = Running::open(anywhere());
    let (first, second) = (member(&service, "a", bounds(2, 2)), member(&service, "b", bounds(2, 2)));
    places(&[&first, &second], 0);
    first.fail(1, "rank 0 on a failed: exit code 3".into(), 1);
    wait_for_change(&second, 1);
    first.ask(1, "a:2".into());
    second.ask(1, "b:2".into());
    let placements = places(&[&first, &second], 1);
    assert_eq!(placements.iter().map(|placement| placement.restarts).collect::<Vec<_>>(), [1, 1]);
    assert!(placements[0].leader.ends_with(":2"), "{placements:?}");
    second.fail(2, "rank 1 on b failed: exit code 4".into(), 1);
    let failed = MemberError::Failed { report: "rank 1 on b failed: exit code 4".into() };
    assert_eq!([wait_for_end(&first, 2), wait_for_end(&second, 2)], [failed.clone(), failed]);
    // Who starts again starts anew.
    let (first, second) = (member(&service, "a", bounds(2, 2)), member(&service, "b", bounds(2, 2)));
    assert_eq!(places(&[&first, &second], 0)[0].restarts, 0);
}

#[test]
fn the_training_ends_well_when_it_has_for_all() {
    let service = Running::open(anywhere());
    let (told, news) = std::sync::mpsc::channel();
    let tell = muster_rendezvous::News::new(move || told.send(()).unwrap());
    let first = MemberOptions { news: Some(tell), ..options(service.address, "a", bounds(2, 2)) };
    let (first, second) = (Member::attend(first).unwrap(), member(&service, "b", bounds(2, 2)));
    places(&[&first, &second], 0);
    news.recv_timeout(LONG).unwrap();
    first.end_well(1);
    second.end_well(1);
    news.recv_timeout(LONG).unwrap();
    assert_eq!([wait_for_end(&first, 1), wait_for_end(&second, 1)], [MemberError::Over, MemberError::Over]);
}

#[test]
fn whoever_waits_in_vain_learns_for_what() {
    let service = Running::open(anywhere());
    let lonely = member(&service, "a", bounds(2, 2));
    let patience = Duration::from_millis(300);
    let message = lonely.place(0, patience).unwrap_err().to_string();
    let address = format!("http://{}", service.address);
    assert_eq!(
        message,
        format!(
            "no place in the training within 300ms: the rendezvous at {address} still waits for other ranks"
        )
    );
    drop(service);
    let late =
        Member::attend(options(address["http://".len()..].parse().unwrap(), "b", bounds(2, 2))).unwrap();
    let message = late.place(0, Duration::from_secs(1)).unwrap_err().to_string();
    assert!(message.contains(&format!("the rendezvous at {address} cannot be reached: ")), "{message}");
}

#[test]
fn callers_are_admitted_by_their_token_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let admission: Admission = Arc::new(|caller: Caller| {
        Box::pin(async move {
            match caller.token.as_deref() {
                Some("secret-of-digits") => Ok("namespace/digits".into()),
                _ => Err(NotAdmitted::Refused("this token belongs to no training".into())),
            }
        })
    });
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let service = Running::start(ServiceOptions {
        certificate: Some((certificate.clone(), key)),
        admission,
        ..ServiceOptions::open(anywhere())
    });
    let attend = |token: &str| {
        let token_file = folder.path().join(token);
        fs_err::write(&token_file, format!("{token}\n")).unwrap();
        let address = format!("https://localhost:{}", service.address.port());
        let options = MemberOptions {
            addresses: vec!["https://127.0.0.1:9".into(), address],
            authority: Some(certificate.clone()),
            token_file: Some(token_file),
            ..options(service.address, token, bounds(1, 1))
        };
        Member::attend(options).unwrap()
    };
    assert_eq!(ranks(&[attend("secret-of-digits").place(0, LONG).unwrap()]), [(1, 0, 1)]);
    let message = attend("another").place(0, LONG).unwrap_err().to_string();
    assert!(message.ends_with("refuses this rank: this token belongs to no training"), "{message}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let service = Running::open(anywhere());
    let message = member(&service, "a", bounds(3, 2)).place(0, LONG).unwrap_err().to_string();
    assert!(message.contains("refuses this rank: fewest 3, expected 3 and most 2"), "{message}");
}
