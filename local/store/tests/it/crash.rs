use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use muster_store::{Durability, Handle, ObjectKey, Options, Query, SqliteLog, Start, Store};

use crate::support::{object, pod};

const DATABASE: &str = "MUSTER_STORE_CRASH_DATABASE";
const DURABILITY: &str = "MUSTER_STORE_CRASH_DURABILITY";
const ACKNOWLEDGED: &str = "acknowledged ";
const WRITERS: usize = 4;
const PODS: u64 = 5;

fn open(path: &std::path::Path, durability: Durability) -> Handle {
    let options = Options { retained_revisions: 1_000, ..Options::default() };
    Store::open(options, Box::new(SqliteLog::open(path, durability).unwrap())).unwrap()
}

/// The child of the test below; on its own it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn writes_until_killed() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let power = std::env::var(DURABILITY).is_ok_and(|durability| durability == "power");
    let store = open(database.as_ref(), if power { Durability::Power } else { Durability::Process });
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write_forever(store.clone(), writer)));
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
}

/// Creates, updates and deletes its own pods and prints what was acknowledged.
async fn write_forever(store: Handle, writer: usize) {
    for number in 0.. {
        let key = pod(&format!("pod-{writer}-{}", number % PODS));
        let entry = match store.get(&key) {
            None => store.create(key.clone(), object(&key, number)).await,
            Some(entry) if number % 7 == 0 => store.delete(key.clone(), entry.revision(), None).await,
            Some(entry) => store.update(key.clone(), entry.revision(), object(&key, number)).await,
        };
        let deleted = if store.get(&key).is_none() { "deleted" } else { "stored" };
        println!("\n{ACKNOWLEDGED}{} {} {deleted}", key.name, entry.unwrap().revision());
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    for (durability, name) in [(Durability::Process, "process"), (Durability::Power, "power")] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("api.db");
        let mut last: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        for lines in [1, 40, 333, 900] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crash::writes_until_killed", "--nocapture"])
                .env(DATABASE, &database)
                .env(DURABILITY, name)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut seen = 0;
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                // Whatever was printed before the kill counts, so reading goes on to the end.
                let line = line.unwrap();
                let Some(line) = line.strip_prefix(ACKNOWLEDGED) else { continue };
                let words: Vec<_> = line.split(' ').collect();
                let [name, revision, state] = words[..] else { continue };
                last.insert(name.to_owned(), (revision.parse().unwrap(), state == "deleted"));
                seen += 1;
                if seen == lines {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            assert!(seen >= lines, "the child ended by itself after {seen} writes");
            verify(&open(&database, durability), &last).await;
        }
    }
}

/// Every acknowledged write is there, unless one that was not acknowledged any more came after it.
async fn verify(store: &Handle, last: &BTreeMap<String, (u64, bool)>) {
    let newest = last.values().map(|(revision, _)| *revision).max().unwrap();
    assert!(store.current_revision() >= newest);
    let mut events = BTreeMap::new();
    let mut watch = store.watch("core/pods", None, Start::After(store.compacted_revision())).unwrap();
    while let Some(event) = watch.try_next().unwrap() {
        events.insert(event.revision, event);
    }
    for (name, (revision, deleted)) in last {
        if *revision > store.compacted_revision() {
            assert_eq!(*events[revision].entry.key().name, **name);
        }
        match store.get(&pod(name)) {
            Some(entry) if *deleted => assert!(entry.create_revision() > *revision, "{name} is back"),
            Some(entry) => assert!(entry.revision() >= *revision, "{name} is older than acknowledged"),
            None if *deleted => {}
            None => {
                let later = events.range(revision + 1..).any(|(_, event)| *event.entry.key().name == **name);
                assert!(later, "{name} at {revision} is lost");
            }
        }
    }
    for entry in store.list(&Query::new("core/pods")).entries {
        assert_eq!(entry.object()["metadata"]["resourceVersion"], entry.revision().to_string());
    }
    let key = ObjectKey::new("core/nodes", "", format!("node-{newest}"));
    store.create(key.clone(), object(&key, 0)).await.unwrap();
    store.close().await.unwrap();
}
