//! `/metrics`: how many requests were answered and how many objects are stored, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use muster_store::Query;
use parking_lot::Mutex;

use crate::app::App;

/// Requests by verb, resource and status code.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(&'static str, String, u16), u64>>);

impl Requests {
    /// Counts an answer.
    pub(crate) fn count(&self, verb: &'static str, resource: &str, code: u16) {
        *self.0.lock().entry((verb, resource.to_owned(), code)).or_default() += 1;
    }
}

/// The text of all metrics.
pub(crate) fn text(app: &App) -> String {
    let mut out = String::from(
        "# HELP apiserver_request_total Answered requests.\n# TYPE apiserver_request_total counter\n",
    );
    for ((verb, resource, code), count) in app.requests.0.lock().iter() {
        let _ = writeln!(
            out,
            "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {count}"
        );
    }
    out.push_str(
        "# HELP apiserver_resource_objects Stored objects.\n# TYPE apiserver_resource_objects gauge\n",
    );
    for resource in app.registry.snapshot().stored() {
        let count = app.store.list(&Query::new(&resource.storage_key)).entries.len();
        let (group, plural) = (&resource.group, &resource.plural);
        let _ =
            writeln!(out, "apiserver_resource_objects{{group=\"{group}\",resource=\"{plural}\"}} {count}");
    }
    let _ = writeln!(
        out,
        "# HELP apiserver_storage_revision Revision of the newest write.\n# TYPE apiserver_storage_revision gauge\napiserver_storage_revision {}",
        app.store.current_revision()
    );
    out
}
