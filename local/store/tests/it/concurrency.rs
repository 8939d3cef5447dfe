use std::time::Duration;

use futures::future::join_all;
use muster_store::{Error, EventKind, Options, Query, Start};
use serde_json::json;

use crate::support::{DEADLINE, FaultyLog, in_memory, next, object, on_disk, pod};

#[tokio::test(flavor = "multi_thread")]
async fn eight_writers_that_compare_and_swap_lose_no_increment() {
    const WRITERS: u64 = 8;
    const INCREMENTS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(&folder, Options::default());
    let key = pod("counter");
    store.create(key.clone(), object(&key, 0)).await.unwrap();
    let writers = (0..WRITERS).map(|_| {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while done < INCREMENTS {
                let entry = store.get(&key).unwrap();
                let number = entry.object()["spec"]["number"].as_u64().unwrap();
                match store.update(key.clone(), entry.revision(), object(&key, number + 1)).await {
                    Ok(_) => done += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    assert_eq!(store.get(&key).unwrap().object()["spec"]["number"], WRITERS * INCREMENTS);
    assert_eq!(
        store.current_revision(),
        2 + WRITERS * INCREMENTS,
        "a revision for each write, none for conflicts"
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_batch_takes_everything_that_is_queued() {
    // On one thread nothing but the gate decides what is queued when.
    let log = FaultyLog::new();
    let gate = log.gate();
    let store = log.open(Options::default());
    let writes = join_all((0..10).map(|number| {
        let key = pod(&format!("pod-{number}"));
        store.create(key.clone(), object(&key, number))
    }));
    let release = async {
        // The writes above were polled first, so all of them are queued.
        assert_eq!(store.current_revision(), 1, "nothing is visible before the log has it");
        gate.send(()).unwrap();
        gate.send(()).unwrap();
    };
    let (results, ()) = futures::future::join(writes, release).await;
    assert!(results.iter().all(Result::is_ok));
    let batches = log.faults.lock().batches.clone();
    assert!(batches.len() <= 2, "one batch while the first was held, not {batches:?}");
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing_and_sees_itself() {
    use muster_store::Mutation::{Create, Delete, Update};
    let store = in_memory(Options::default());
    let (left, right) = (pod("left"), pod("right"));
    let entries = store
        .transact(vec![
            Create { key: left.clone(), object: object(&left, 1) },
            Create { key: right.clone(), object: object(&right, 1) },
        ])
        .await
        .unwrap();
    assert_eq!(entries.iter().map(|entry| entry.revision()).collect::<Vec<_>>(), [2, 3]);
    let refused = store
        .transact(vec![
            Delete { key: left.clone(), expected_revision: 2, last: None },
            Update { key: right.clone(), expected_revision: 2, object: object(&right, 2) },
        ])
        .await;
    assert!(matches!(refused, Err(Error::Conflict { expected: 2, actual: 3, .. })));
    assert_eq!(store.current_revision(), 3);
    assert_eq!(store.get(&left).unwrap().revision(), 2);
    store
        .transact(vec![
            Delete { key: left.clone(), expected_revision: 2, last: None },
            Create { key: left.clone(), object: object(&left, 7) },
            Update { key: left.clone(), expected_revision: 5, object: object(&left, 8) },
        ])
        .await
        .unwrap();
    let entry = store.get(&left).unwrap();
    assert_eq!((entry.revision(), entry.create_revision()), (6, 5));
    assert_eq!(entry.object()["spec"]["number"], 8);
    assert_eq!(entry.object()["metadata"]["resourceVersion"], "6");
}

#[tokio::test]
async fn what_is_no_object_is_refused() {
    let store = in_memory(Options::default());
    for value in [json!(null), json!([1]), json!({"metadata": 3})] {
        let refused = store.create(pod("odd"), value).await;
        assert!(matches!(refused, Err(Error::NotAnObject { .. })));
    }
    assert_eq!(store.current_revision(), 1);
}

#[tokio::test]
async fn closing_finishes_queued_writes_and_ends_watches() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(&folder, Options::default());
    let mut watch = store.watch("core/pods", None, Start::Now).unwrap();
    let writes = join_all((0..10).map(|number| {
        let key = pod(&format!("pod-{number}"));
        store.create(key.clone(), object(&key, number))
    }));
    let (results, closed) = futures::future::join(writes, store.close()).await;
    assert!(results.iter().all(Result::is_ok));
    closed.unwrap();
    for revision in 2..12 {
        assert_eq!(next(&mut watch).await.revision, revision);
    }
    assert!(matches!(watch.next().await, Err(Error::Closed)));
    assert!(matches!(store.create(pod("late"), object(&pod("late"), 0)).await, Err(Error::Closed)));
    assert_eq!(store.list(&Query::new("core/pods")).entries.len(), 10, "reads go on");
    let again = on_disk(&folder, Options::default());
    assert_eq!(again.list(&Query::new("core/pods")).entries.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_and_waiters_see_writes_of_others() {
    let store = in_memory(Options::default());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let waiter = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for_revision(101, deadline).await }
    });
    let mut watches: Vec<_> = (0..8).map(|_| store.watch("core/pods", None, Start::Now).unwrap()).collect();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..100 {
                let key = pod(&format!("pod-{number}"));
                store.create(key.clone(), object(&key, number)).await.unwrap();
            }
        }
    });
    let impatient = watches.split_off(4);
    let patient = watches.into_iter().map(|mut watch| {
        tokio::spawn(async move {
            for revision in 2..=101 {
                assert_eq!(next(&mut watch).await.revision, revision);
            }
        })
    });
    let patient: Vec<_> = patient.collect();
    for mut watch in impatient {
        for revision in 2..=101 {
            // Giving up on a wait and coming back loses nothing.
            let event = loop {
                if let Ok(event) = tokio::time::timeout(Duration::from_micros(50), watch.next()).await {
                    break event.unwrap();
                }
            };
            assert_eq!((event.kind, event.revision), (EventKind::Added, revision));
        }
    }
    for watcher in patient {
        watcher.await.unwrap();
    }
    writer.await.unwrap();
    waiter.await.unwrap().unwrap();
    let missed = store.wait_for_revision(102, tokio::time::Instant::now()).await;
    assert!(matches!(missed, Err(Error::Future { requested: 102, current: 101 })));
}
