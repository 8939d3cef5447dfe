//! How groups are formed: by ids, through groups of processes, and from groups.

use std::time::Duration;

use muster_collectives::{Communicator as Host, Options as HostOptions, Reduction};
use muster_nccl::{Communicator, Error, Joining, Nccl, Options, UniqueId};

use crate::fake::{Fake, SOURCE, compile, join, with_ranks};
use crate::host_queue::HostQueue;

#[test]
fn joining_waits_for_every_rank() {
    let fake = Fake::get();
    let id = fake.new_id();
    let first = Joining::begin(&fake.nccl, id, &HostQueue::new(), &Options::new(0, 2)).unwrap();
    assert_eq!(fake.joined(id), 1);
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| join(id, &Options::new(1, 2)).unwrap());
        (first.finish().unwrap(), second.join().unwrap())
    });
    assert_eq!((first.rank(), second.rank(), second.world_size()), (0, 1, 2));
    drop((first, second));
    fake.check(id);
}

#[test]
fn ranks_that_do_not_exist_are_refused() {
    let fake = Fake::get();
    let id = UniqueId::from_bytes(fake.new_id().to_bytes());
    let refused = join(id, &Options::new(2, 2)).unwrap_err().to_string();
    assert_eq!(refused, "rank 2 does not exist in a group of 2");
    // What the library itself refuses.
    let refused = join(UniqueId::from_bytes([0; 128]), &Options::new(0, 1)).unwrap_err().to_string();
    assert_eq!(refused, "rank 0 on this host: join: invalid argument");
    assert_eq!(fake.joined(id), 0);
    assert_eq!(format!("{id:?}"), "UniqueId(…)");
}

#[test]
fn a_group_of_processes_carries_the_id() {
    let directory = tempfile::tempdir().unwrap();
    let sums: Vec<_> = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..3)
            .map(|rank| {
                let options = HostOptions::new(directory.path(), "gpus", rank, 3);
                scope.spawn(move || {
                    let mut host = Host::connect(&options).unwrap();
                    let nccl = &Fake::get().nccl;
                    // Rank and world size are those of the group of processes.
                    let options = Options::new(0, 1);
                    let mut group =
                        Communicator::join_through(nccl, &mut host, &HostQueue::new(), &options).unwrap();
                    let mut buffer = group.upload(&[group.rank() as i32]).unwrap();
                    group.all_reduce(&mut buffer, Reduction::Sum).unwrap().wait().unwrap();
                    group.download(&buffer).unwrap()[0]
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert_eq!(sums, [3, 3, 3]);
}

#[test]
fn every_rank_learns_that_rank_0_has_no_id() {
    let broken = format!(
        "#define ncclGetUniqueId original\n{SOURCE}\n#undef ncclGetUniqueId\nint ncclGetUniqueId(void *id) {{ (void)id; return 2; }}\n"
    );
    let nccl = Nccl::open(&compile(&broken, &[])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let errors: Vec<String> = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..2)
            .map(|rank| {
                let host = "node-a".to_owned();
                let options = HostOptions { host, ..HostOptions::new(directory.path(), "none", rank, 2) };
                let nccl = &nccl;
                scope.spawn(move || {
                    let mut host = Host::connect(&options).unwrap();
                    UniqueId::share(nccl, &mut host).unwrap_err().to_string()
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert_eq!(errors[0], "NCCL makes no id for a group: unhandled system error");
    assert_eq!(errors[1], "rank 0 on node-a could not make an id for the group; its own error says why");
}

#[test]
fn parts_of_a_group_are_groups_beside_it() {
    let results = with_ranks(4, |mut group| {
        let rank = group.rank();
        // Even and odd ranks; the even ones in reverse order. Rank 3 takes no part.
        let colour = if rank == 3 { None } else { Some(rank as u32 % 2) };
        let mut part = group.split(colour, -(rank as i32)).unwrap();
        let place = part.as_ref().map(|part| (part.rank(), part.world_size()));
        let mut sum = None;
        if let Some(part) = &mut part {
            let mut buffer = part.upload(&[10_i32.pow(rank as u32)]).unwrap();
            part.all_reduce(&mut buffer, Reduction::Sum).unwrap().wait().unwrap();
            sum = Some(part.download(&buffer).unwrap()[0]);
        }
        let mut buffer = group.upload(&[1_i32]).unwrap();
        group.all_reduce(&mut buffer, Reduction::Sum).unwrap().wait().unwrap();
        assert_eq!(group.download(&buffer).unwrap(), [4]);
        // Once more, into one group of all.
        let all = group.split(Some(7), 0).unwrap().unwrap();
        assert_eq!((all.rank(), all.world_size()), (rank, 4));
        (place, sum)
    });
    assert_eq!(
        results,
        [(Some((1, 2)), Some(101)), (Some((0, 1)), Some(10)), (Some((0, 2)), Some(101)), (None, None)]
    );
}

#[test]
fn a_split_for_which_a_rank_does_not_come_ends() {
    let fake = Fake::get();
    let id = fake.new_id();
    std::thread::scope(|scope| {
        let second = scope.spawn(move || join(id, &Options::new(1, 2)).unwrap());
        let first = scope.spawn(move || {
            let join_deadline = Duration::from_secs(1);
            let mut group = join(id, &Options { join_deadline, ..Options::new(0, 2) })?;
            group.split(Some(1), 0).map(|part| part.is_some())
        });
        let error = first.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::NotJoined { world_size: 2, .. }), "{error}");
        drop(second.join().unwrap());
    });
    fake.check(id);
}

#[test]
fn a_version_without_split_says_so() {
    let nccl = Nccl::open(&compile(SOURCE, &["FAKE_VERSION=21705", "FAKE_WITHOUT_SPLIT"])).unwrap();
    let id = UniqueId::new(&nccl).unwrap();
    let mut group = Communicator::join(&nccl, id, &HostQueue::new(), &Options::new(0, 1)).unwrap();
    let error = group.split(Some(0), 0).unwrap_err();
    assert!(error.to_string().starts_with("NCCL 2.17.5 cannot split a group, 2.18 can"), "{error}");
    group.close().unwrap();
}

#[test]
fn every_rank_measures_the_same_rows_and_finds_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<_> = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..2)
            .map(|rank| {
                let options = HostOptions::new(directory.path(), "bench", rank, 2);
                scope.spawn(move || {
                    let mut host = Host::connect(&options).unwrap();
                    let (nccl, queue, options) = (&Fake::get().nccl, HostQueue::new(), Options::new(rank, 2));
                    let mut group = Communicator::join_through(nccl, &mut host, &queue, &options).unwrap();
                    muster_nccl::benchmark::measure(&mut group, &mut host, &[4, 1000]).unwrap()
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[0].iter().map(|row| (row.bytes, row.wrong)).collect::<Vec<_>>(), [(4, 0), (1000, 0)]);
}
