use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_store::{Clock, Error, EventKind, ObjectKey, Options, Query, Start};
use parking_lot::Mutex;

use crate::support::{in_memory, next, object, pod, summary};

#[tokio::test]
async fn a_slow_watcher_is_expired_and_others_are_not() {
    let store = in_memory(Options { history_events: 10, ..Options::default() });
    let mut slow = store.watch("core/pods", None, Start::Now).unwrap();
    let mut brisk = store.watch("core/pods", None, Start::Now).unwrap();
    let mut quiet = store.watch("core/nodes", None, Start::Now).unwrap();
    for number in 0..25 {
        let key = pod(&format!("pod-{number}"));
        store.create(key.clone(), object(&key, number)).await.unwrap();
        assert_eq!(next(&mut brisk).await.revision, number + 2);
    }
    assert!(matches!(slow.next().await, Err(Error::Expired { requested: 1, oldest: 16 })));
    assert!(matches!(slow.next().await, Err(Error::Expired { .. })), "and stays so");
    assert!(matches!(store.watch("core/pods", None, Start::After(15)), Err(Error::Expired { .. })));
    let mut resumed = store.watch("core/pods", None, Start::After(16)).unwrap();
    assert_eq!(next(&mut resumed).await.revision, 17);
    let node = ObjectKey::new("core/nodes", "", "node-0");
    store.create(node.clone(), object(&node, 0)).await.unwrap();
    assert_eq!(summary(&next(&mut quiet).await), (EventKind::Added, "node-0".to_owned(), 27));
}

#[tokio::test]
async fn old_versions_are_read_as_they_were_written() {
    let store = in_memory(Options::default());
    let key = pod("busy");
    let mut written = vec![store.create(key.clone(), object(&key, 0)).await.unwrap()];
    for number in 1..1000 {
        let revision = written.last().unwrap().revision();
        written.push(store.update(key.clone(), revision, object(&key, number)).await.unwrap());
    }
    store.delete(key.clone(), written.last().unwrap().revision(), None).await.unwrap();
    let mut watch = store.watch("core/pods", None, Start::After(1)).unwrap();
    for (number, entry) in (0..).zip(&written) {
        let event = next(&mut watch).await;
        let mut expected = object(&key, number);
        expected["metadata"]["resourceVersion"] = entry.revision().to_string().into();
        assert_eq!((event.revision, &*event.entry.object()), (entry.revision(), &expected));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&event.entry.json()).unwrap(), expected);
    }
    assert_eq!(next(&mut watch).await.kind, EventKind::Deleted);
}

#[tokio::test]
async fn history_is_bounded_in_bytes() {
    let store = in_memory(Options { history_bytes: 64 << 10, ..Options::default() });
    let key = pod("large");
    let mut value = object(&key, 0);
    value["data"] = "x".repeat(16 << 10).into();
    let mut revision = store.create(key.clone(), value.clone()).await.unwrap().revision();
    for _ in 0..10 {
        revision = store.update(key.clone(), revision, value.clone()).await.unwrap().revision();
    }
    assert!(matches!(store.watch("core/pods", None, Start::After(5)), Err(Error::Expired { .. })));
    store.watch("core/pods", None, Start::After(revision - 3)).unwrap();
}

#[tokio::test]
async fn objects_are_bounded_in_bytes_and_large_ones_can_be_deleted() {
    let store = in_memory(Options { object_bytes: 200, ..Options::default() });
    let (key, large) = (pod("grown"), "x".repeat(200));
    let mut value = object(&key, 0);
    value["data"] = large.clone().into();
    let refused = store.create(key.clone(), value.clone()).await;
    assert!(matches!(refused, Err(Error::TooLarge { size: 200.., limit: 200, .. })), "{refused:?}");
    let revision = store.create(key.clone(), object(&key, 0)).await.unwrap().revision();
    let refused = store.update(key.clone(), revision, value.clone()).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.get(&key).unwrap().revision(), revision, "nothing was written");
    store.delete(key.clone(), revision, Some(value)).await.unwrap();
    assert!(store.get(&key).is_none());
}

#[tokio::test]
async fn a_watch_of_a_namespace_sees_only_it_and_knows_how_far_it_is() {
    let store = in_memory(Options::default());
    let mut watch = store.watch("core/pods", Some("other"), Start::Now).unwrap();
    for number in 0..5 {
        let key = pod(&format!("pod-{number}"));
        store.create(key.clone(), object(&key, number)).await.unwrap();
    }
    assert!(watch.try_next().unwrap().is_none());
    assert_eq!(watch.caught_up(), 6, "nothing of this watch happened up to here");
    let key = ObjectKey::new("core/pods", "other", "pod");
    store.create(key.clone(), object(&key, 0)).await.unwrap();
    store.delete(key.clone(), 7, None).await.unwrap();
    assert_eq!(watch.caught_up(), 6, "an event that was not handed out yet holds it back");
    assert_eq!(next(&mut watch).await.revision, 7);
    assert_eq!(watch.caught_up(), 7);
    let deletion = next(&mut watch).await;
    assert_eq!(summary(&deletion), (EventKind::Deleted, "pod".to_owned(), 8));
    assert_eq!(deletion.entry.object()["metadata"]["resourceVersion"], "8");
    assert_eq!(deletion.previous.unwrap().revision(), 7);
    assert_eq!(watch.caught_up(), 8);
}

#[tokio::test]
async fn compaction_ends_history_but_no_watch_that_missed_nothing() {
    let store = in_memory(Options::default());
    let key = pod("pod");
    let node = ObjectKey::new("core/nodes", "", "node-0");
    let mut quiet = store.watch("core/nodes", None, Start::Now).unwrap();
    let mut behind = store.watch("core/pods", None, Start::Now).unwrap();
    let mut revision = store.create(key.clone(), object(&key, 0)).await.unwrap().revision();
    for number in 1..10 {
        revision = store.update(key.clone(), revision, object(&key, number)).await.unwrap().revision();
    }
    assert_eq!(store.list_at(&Query::new("core/pods"), 5).unwrap().entries[0].revision(), 5);
    store.compact(8).await.unwrap();
    store.compact(3).await.unwrap();
    assert_eq!((store.compacted_revision(), store.current_revision()), (8, 11));
    for resource in ["core/pods", "core/nodes"] {
        let query = Query::new(resource);
        assert!(matches!(store.list_at(&query, 7), Err(Error::Expired { requested: 7, oldest: 8 })));
        assert!(matches!(store.watch(resource, None, Start::After(7)), Err(Error::Expired { .. })));
        store.watch(resource, None, Start::After(8)).unwrap();
        assert!(matches!(store.list_at(&query, 12), Err(Error::Future { requested: 12, current: 11 })));
        assert!(matches!(store.watch(resource, None, Start::After(12)), Err(Error::Future { .. })));
    }
    assert_eq!(store.list_at(&Query::new("core/pods"), 8).unwrap().entries[0].revision(), 8);
    assert!(matches!(store.compact(12).await, Err(Error::Future { .. })));
    store.create(node.clone(), object(&node, 0)).await.unwrap();
    assert_eq!(next(&mut quiet).await.revision, 12);
    assert!(matches!(behind.next().await, Err(Error::Expired { .. })));
}

#[tokio::test]
async fn old_revisions_are_compacted_by_count() {
    let store = in_memory(Options { retained_revisions: 100, ..Options::default() });
    let key = pod("pod");
    let mut revision = store.create(key.clone(), object(&key, 0)).await.unwrap().revision();
    while revision < 2_000 {
        revision = store.update(key.clone(), revision, object(&key, revision)).await.unwrap().revision();
    }
    // Compaction runs behind the writes, in steps; it is done before the next command is answered.
    store.compact(0).await.unwrap();
    assert_eq!(store.compacted_revision(), 1_500);
    assert!(store.list_at(&Query::new("core/pods"), 1_499).is_err());
    assert_eq!(store.list_at(&Query::new("core/pods"), 1_500).unwrap().entries[0].revision(), 1_500);
}

#[tokio::test]
async fn old_revisions_are_compacted_by_age() {
    let now = Arc::new(Mutex::new(Instant::now()));
    let clock = Clock::new({
        let now = now.clone();
        move || *now.lock()
    });
    let retained_age = Duration::from_mins(1);
    let store = in_memory(Options { retained_age, clock, ..Options::default() });
    let key = pod("pod");
    let mut revision = store.create(key.clone(), object(&key, 0)).await.unwrap().revision();
    while revision < 1_001 {
        revision = store.update(key.clone(), revision, object(&key, revision)).await.unwrap().revision();
    }
    store.compact(0).await.unwrap();
    assert_eq!(store.compacted_revision(), 0, "nothing is old");
    *now.lock() += Duration::from_secs(61);
    for _ in 0..3 {
        revision = store.update(key.clone(), revision, object(&key, revision)).await.unwrap().revision();
    }
    store.compact(0).await.unwrap();
    assert_eq!(store.compacted_revision(), 1_000, "two steps, the rest is less than one");
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_revision() {
    let store = in_memory(Options::default());
    for number in 0..10 {
        for namespace in ["a", "b"] {
            let key = ObjectKey::new("core/pods", namespace, format!("pod-{number}"));
            store.create(key.clone(), object(&key, number)).await.unwrap();
        }
    }
    let query = Query::new("core/pods").limit(Some(7));
    let first = store.list(&query);
    assert_eq!((first.revision, first.entries.len(), first.remaining), (21, 7, 13));
    for (name, revision) in [("pod-3", 8), ("pod-9", 20)] {
        store.delete(ObjectKey::new("core/pods", "a", name), revision, None).await.unwrap();
    }
    let mut names: Vec<_> = first.entries.iter().map(|entry| entry.key().clone()).collect();
    loop {
        let last = names.last().unwrap().clone();
        let page = store.list_at(&query.after(Some((&last.namespace, &last.name))), first.revision).unwrap();
        names.extend(page.entries.iter().map(|entry| entry.key().clone()));
        assert_eq!(names.len() + page.remaining, 20);
        if page.remaining == 0 {
            break;
        }
    }
    assert!(names.is_sorted());
    assert_eq!(store.list(&Query::new("core/pods").namespace(Some("a"))).entries.len(), 8);
    let beyond = query.namespace(Some("a")).after(Some(("b", "")));
    assert!(store.list(&beyond).entries.is_empty());
}
