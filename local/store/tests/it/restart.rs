use std::os::unix::fs::PermissionsExt;

use fs_err as fs;
use muster_store::{Durability, Error, EventKind, LogError, Options, Query, SqliteLog, Start, Store};

use crate::support::{next, object, on_disk, pod, summary};

#[tokio::test]
async fn objects_and_history_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(&folder, Options::default());
    let (left, right) = (pod("left"), pod("right"));
    store.create(left.clone(), object(&left, 1)).await.unwrap();
    store.create(right.clone(), object(&right, 1)).await.unwrap();
    store.update(left.clone(), 2, object(&left, 2)).await.unwrap();
    let last = object(&right, 99);
    store.delete(right.clone(), 3, Some(last)).await.unwrap();
    let before = store.list(&Query::new("core/pods"));
    store.close().await.unwrap();

    let store = on_disk(&folder, Options::default());
    let after = store.list(&Query::new("core/pods"));
    assert_eq!((before.revision, after.revision), (5, 5));
    assert_eq!(before.entries.len(), 1);
    assert_eq!(before.entries[0].json(), after.entries[0].json());
    assert_eq!(after.entries[0].object()["metadata"]["resourceVersion"], "4");
    assert_eq!(after.entries[0].create_revision(), 2);
    assert_eq!(store.list_at(&Query::new("core/pods"), 3).unwrap().entries.len(), 2);
    let mut watch = store.watch("core/pods", None, Start::After(3)).unwrap();
    assert_eq!(summary(&next(&mut watch).await), (EventKind::Modified, "left".to_owned(), 4));
    let deletion = next(&mut watch).await;
    assert_eq!(summary(&deletion), (EventKind::Deleted, "right".to_owned(), 5));
    assert_eq!(deletion.entry.object()["spec"]["number"], 99);
    assert_eq!(store.create(right.clone(), object(&right, 2)).await.unwrap().revision(), 6);
}

#[tokio::test]
async fn a_revision_is_never_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(&folder, Options::default());
    let key = pod("pod");
    store.create(key.clone(), object(&key, 1)).await.unwrap();
    store.delete(key.clone(), 2, None).await.unwrap();
    store.compact(3).await.unwrap();
    store.close().await.unwrap();
    // Nothing but the mark of the compaction is left in the file.
    let store = on_disk(&folder, Options::default());
    assert_eq!((store.current_revision(), store.compacted_revision()), (3, 3));
    assert!(matches!(store.watch("core/pods", None, Start::After(2)), Err(Error::Expired { .. })));
    assert_eq!(store.create(key.clone(), object(&key, 1)).await.unwrap().revision(), 4);
}

#[tokio::test]
async fn compaction_shrinks_the_log_and_keeps_the_objects() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(&folder, Options::default());
    let (busy, calm) = (pod("busy"), pod("calm"));
    store.create(calm.clone(), object(&calm, 0)).await.unwrap();
    let mut revision = store.create(busy.clone(), object(&busy, 0)).await.unwrap().revision();
    for number in 1..20 {
        revision = store.update(busy.clone(), revision, object(&busy, number)).await.unwrap().revision();
    }
    store.compact(15).await.unwrap();
    store.close().await.unwrap();
    let rows: i64 = rusqlite::Connection::open(folder.path().join("api.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM revisions", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1 + 1 + (revision as i64 - 15), "calm, busy at 15, and what came after");
    let store = on_disk(&folder, Options::default());
    assert_eq!(store.list_at(&Query::new("core/pods"), 15).unwrap().entries.len(), 2);
    assert!(store.list_at(&Query::new("core/pods"), 14).is_err());
    assert_eq!(store.get(&busy).unwrap().revision(), revision);
}

#[test]
fn a_second_opener_is_told_who_holds_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let first = SqliteLog::open(&path, Durability::Power).unwrap();
    let refused = SqliteLog::open(&path, Durability::Power).unwrap_err();
    assert!(matches!(refused, LogError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    drop(first);
    SqliteLog::open(&path, Durability::Process).unwrap();
}

#[test]
fn files_are_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let _log = SqliteLog::open(folder.path().join("api.db"), Durability::Process).unwrap();
    let mut files = 0;
    for file in fs::read_dir(folder.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert!(files >= 2);
}

#[test]
fn files_of_others_and_of_newer_releases_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let text = "not a database, but long enough to be taken for one ".repeat(100);
    for content in ["x", &text] {
        fs::write(&path, content).unwrap();
        let refused = SqliteLog::open(&path, Durability::Process).unwrap_err();
        assert!(matches!(refused, LogError::NotAStore { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    let refused = SqliteLog::open(&path, Durability::Process).unwrap_err();
    assert!(matches!(refused, LogError::NotAStore { .. }), "{refused}");

    fs::remove_file(&path).unwrap();
    drop(SqliteLog::open(&path, Durability::Process).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let refused = SqliteLog::open(&path, Durability::Process).unwrap_err();
    assert!(matches!(refused, LogError::TooNew { found: 7, supported: 1, .. }), "{refused}");
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let store = on_disk(&folder, Options::default());
    let key = pod("pod");
    store.create(key.clone(), object(&key, 1)).await.unwrap();
    store.close().await.unwrap();
    rusqlite::Connection::open(&path).unwrap().execute("UPDATE revisions SET object = x'7b'", []).unwrap();
    let log = SqliteLog::open(&path, Durability::Process).unwrap();
    let refused = Store::open(Options::default(), Box::new(log)).unwrap_err();
    assert!(refused.to_string().contains("revision 2 of core/pods/default/pod is damaged"), "{refused}");
}
