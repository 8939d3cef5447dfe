use muster_store::{Error, EventKind, Options, Query, Start};

use crate::support::{FaultyLog, next, object, pod, summary};

#[tokio::test]
async fn a_failing_log_changes_nothing_and_the_store_recovers() {
    for written_all_the_same in [false, true] {
        let log = FaultyLog::new();
        let store = log.open(Options::default());
        let (kept, lost, later) = (pod("kept"), pod("lost"), pod("later"));
        store.create(kept.clone(), object(&kept, 1)).await.unwrap();
        let mut watch = store.watch("core/pods", None, Start::After(1)).unwrap();

        {
            let mut faults = log.faults.lock();
            faults.failing_appends = 2;
            faults.failing_truncations = 1;
            faults.written_all_the_same = written_all_the_same;
        }
        let failed = store.create(lost.clone(), object(&lost, 1)).await.unwrap_err();
        assert!(matches!(failed, Error::Log(_)));
        assert!(failed.to_string().contains("no space left on device"), "{failed}");
        assert!(matches!(store.update(kept.clone(), 2, object(&kept, 2)).await, Err(Error::Log(_))));
        assert!(matches!(store.delete(kept.clone(), 2, None).await, Err(Error::Log(_))));
        assert_eq!(store.current_revision(), 2);
        assert!(store.get(&lost).is_none());
        assert_eq!(store.get(&kept).unwrap().object()["spec"]["number"], 1);

        let entry = store.create(later.clone(), object(&later, 1)).await.unwrap();
        assert_eq!(entry.revision(), 3, "a failed write takes no revision");
        assert_eq!(summary(&next(&mut watch).await), (EventKind::Added, "kept".to_owned(), 2));
        assert_eq!(summary(&next(&mut watch).await), (EventKind::Added, "later".to_owned(), 3));
        assert!(watch.try_next().unwrap().is_none());

        store.close().await.unwrap();
        let reopened = log.open(Options::default());
        let names: Vec<_> = reopened
            .list(&Query::new("core/pods"))
            .entries
            .iter()
            .map(|entry| (entry.key().name.to_string(), entry.revision()))
            .collect();
        assert_eq!(names, [("kept".to_owned(), 2), ("later".to_owned(), 3)]);
    }
}

#[tokio::test]
async fn a_refusal_that_rests_on_a_failed_write_is_reported_as_the_failure() {
    let log = FaultyLog::new();
    let gate = log.gate();
    let store = log.open(Options::default());
    let key = pod("contested");
    // Held in the log while the next two queue up behind it.
    let blocker = store.create(pod("blocker"), object(&pod("blocker"), 0));
    let first = store.create(key.clone(), object(&key, 1));
    let second = store.create(key.clone(), object(&key, 2));
    let release = async {
        log.faults.lock().failing_appends = 3;
        drop(gate);
    };
    let (blocker, first, second, ()) = futures::join!(blocker, first, second, release);
    for result in [blocker, first, second] {
        assert!(matches!(result, Err(Error::Log(_))), "{result:?}");
    }
    log.faults.lock().failing_appends = 0;
    store.create(key.clone(), object(&key, 3)).await.unwrap();
}
