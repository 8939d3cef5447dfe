//! Where the time of a few steps goes, as a Chrome trace: what a rank computes beside what it communicates.
//!
//! The file is a JSON array of complete events, as Chrome's "Trace Event Format" has them. Times are microseconds since
//! 1970, so that files of ranks whose clocks agree can be laid side by side.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Most spans that are kept; what comes later is counted and left out.
const MOST_SPANS: usize = 1 << 20;

/// A line of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Track {
    /// The thread that trains.
    Compute,
    /// The thread that calls on the other ranks.
    Communication,
}

/// What a span belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    None,
    /// A unit of the model, by its index.
    Unit(usize),
    /// A buffer of so many bytes.
    Bytes(usize),
    /// A step, from 1.
    Step(u64),
}

#[derive(Clone, Copy, Debug)]
struct Span {
    track: Track,
    name: &'static str,
    detail: Detail,
    began: Instant,
    took: Duration,
}

/// Records spans while it is on; one that never will costs a comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Option<Arc<Recording>>);

#[derive(Debug)]
struct Recording {
    path: PathBuf,
    process: Process,
    /// Steps before the first that is recorded, and how many are.
    skip: u64,
    steps: u64,
    seen: AtomicU64,
    is_on: AtomicBool,
    /// One moment on both clocks.
    began: (Instant, Duration),
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    left_out: u64,
    units: Vec<String>,
    is_written: bool,
}

/// Who records.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) rank: usize,
    pub(crate) world_size: usize,
    pub(crate) host: String,
}

/// A span that ends when it is dropped.
#[must_use]
pub(crate) struct Running(Option<(Arc<Recording>, Track, &'static str, Detail, Instant)>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((recording, track, name, detail, began)) = self.0.take() {
            recording.keep(Span { track, name, detail, began, took: began.elapsed() });
        }
    }
}

impl Recording {
    fn keep(&self, span: Span) {
        let mut kept = self.kept.lock();
        // A call in the background may end after the last step that is recorded.
        if kept.is_written {
            return;
        }
        if kept.spans.len() < MOST_SPANS {
            kept.spans.push(span);
        } else {
            kept.left_out += 1;
        }
    }
}

impl Recorder {
    /// Records `steps` steps after the first `skip`, for a file at `path` or, of several ranks, beside it. That the file can
    /// be written is tried now.
    pub(crate) fn new(path: &Path, process: Process, skip: u64, steps: u64) -> io::Result<Self> {
        let path = of_rank(path, &process);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::File::create(&path)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self(Some(Arc::new(Recording {
            path,
            process,
            skip,
            steps,
            seen: AtomicU64::new(0),
            is_on: AtomicBool::new(false),
            began: (Instant::now(), since_1970),
            kept: Mutex::default(),
        }))))
    }

    /// What the units of the model are called.
    pub(crate) fn name_units(&self, names: Vec<String>) {
        if let Some(recording) = &self.0 {
            recording.kept.lock().units = names;
        }
    }

    pub(crate) fn records(&self) -> bool {
        self.0.is_some()
    }

    /// A step begins. The file, once it has been written because enough steps were seen.
    pub(crate) fn begin_step(&self) -> io::Result<Option<&Path>> {
        let Some(recording) = &self.0 else { return Ok(None) };
        let seen = recording.seen.fetch_add(1, Ordering::Relaxed);
        let is_on = (recording.skip..recording.skip + recording.steps).contains(&seen);
        recording.is_on.store(is_on, Ordering::Relaxed);
        if seen == recording.skip + recording.steps { self.write() } else { Ok(None) }
    }

    /// Begins a span.
    pub(crate) fn span(&self, track: Track, name: &'static str, detail: Detail) -> Running {
        let recording = self.0.as_ref().filter(|recording| recording.is_on.load(Ordering::Relaxed));
        Running(recording.map(|recording| (Arc::clone(recording), track, name, detail, Instant::now())))
    }

    /// Writes what was recorded, unless that was done. The file, if this wrote it.
    pub(crate) fn write(&self) -> io::Result<Option<&Path>> {
        let Some(recording) = &self.0 else { return Ok(None) };
        recording.is_on.store(false, Ordering::Relaxed);
        let kept = {
            let mut kept = recording.kept.lock();
            if std::mem::replace(&mut kept.is_written, true) {
                return Ok(None);
            }
            std::mem::take(&mut *kept)
        };
        recording.kept.lock().is_written = true;
        let mut file = BufWriter::new(fs_err::File::create(&recording.path)?);
        for (index, event) in recording.events(&kept).enumerate() {
            file.write_all(if index == 0 { b"[\n" } else { b",\n" })?;
            serde_json::to_writer(&mut file, &event)?;
        }
        file.write_all(b"\n]\n")?;
        file.flush()?;
        Ok(Some(&recording.path))
    }
}

impl Recording {
    /// The names of process and threads, then the spans.
    fn events<'a>(&'a self, kept: &'a Kept) -> impl Iterator<Item = Value> + 'a {
        let Process { rank, host, .. } = &self.process;
        let about = |name: &str, thread: u32, arguments: Value| json!({ "name": name, "ph": "M", "pid": rank, "tid": thread, "args": arguments });
        let names = [
            about("process_name", 0, json!({ "name": format!("rank {rank} on {host}") })),
            about("process_sort_index", 0, json!({ "sort_index": rank })),
            about("thread_name", 1, json!({ "name": "compute" })),
            about("thread_name", 2, json!({ "name": "communication" })),
        ];
        let left_out =
            (kept.left_out > 0).then(|| about("spans_left_out", 0, json!({ "count": kept.left_out })));
        names.into_iter().chain(left_out).chain(kept.spans.iter().map(|span| self.event(span, &kept.units)))
    }

    fn event(&self, span: &Span, units: &[String]) -> Value {
        let Span { track, name, detail, began, took } = *span;
        let (base, since_1970) = self.began;
        let start = since_1970 + began.saturating_duration_since(base);
        let (thread, category) = match track {
            Track::Compute => (1, "compute"),
            Track::Communication => (2, "communication"),
        };
        let (name, arguments) = match detail {
            Detail::None => (name.to_owned(), json!({})),
            Detail::Unit(index) => {
                let unit = units.get(index).map_or("?", String::as_str);
                (format!("{name} {unit}"), json!({ "unit": index }))
            }
            Detail::Bytes(bytes) => (name.to_owned(), json!({ "bytes": bytes })),
            Detail::Step(step) => (format!("{name} {step}"), json!({ "step": step })),
        };
        json!({
            "name": name, "cat": category, "ph": "X", "pid": self.process.rank, "tid": thread,
            "ts": microseconds(start), "dur": microseconds(took), "args": arguments,
        })
    }
}

fn microseconds(time: Duration) -> f64 {
    // Whole nanoseconds since 1970 are more than a double holds, a quarter of a microsecond is not.
    time.as_micros() as f64 + f64::from(time.subsec_nanos() % 1000) / 1000.0
}

/// The file of a rank: as it is for one alone.
fn of_rank(path: &Path, process: &Process) -> PathBuf {
    let Process { rank, world_size, .. } = process;
    if *world_size == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(String::new, |end| format!(".{}", end.to_string_lossy()));
    path.with_file_name(format!("{stem}-rank{rank}{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(rank: usize, world_size: usize) -> Process {
        Process { rank, world_size, host: "digits-0".into() }
    }

    fn events(path: &Path) -> Vec<Value> {
        serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
    }

    #[test]
    fn the_file_of_a_rank_has_its_number_before_the_extension() {
        let path = |path: &str, world_size| of_rank(Path::new(path), &process(3, world_size));
        assert_eq!(path("out/trace.json", 4), Path::new("out/trace-rank3.json"));
        assert_eq!(path("trace", 4), Path::new("trace-rank3"));
        assert_eq!(path("trace.json", 1), Path::new("trace.json"));
    }

    #[test]
    fn only_the_steps_asked_for_are_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(&folder.path().join("new/t.json"), process(1, 2), 2, 3).unwrap();
        recorder.name_units(vec!["first".into(), "second".into()]);
        let mut written = Vec::new();
        for step in 1..=7 {
            written.extend(recorder.begin_step().unwrap().map(Path::to_owned));
            let _step = recorder.span(Track::Compute, "step", Detail::Step(step));
            let _inner = recorder.span(Track::Compute, "forward", Detail::Unit(1));
            drop(recorder.span(Track::Communication, "reduce gradients", Detail::Bytes(64)));
        }
        assert_eq!(recorder.write().unwrap(), None, "it was written when the steps were over");
        assert_eq!(written, [folder.path().join("new/t-rank1.json")]);
        let events = events(&written[0]);
        assert!(events.iter().all(|event| event["pid"] == 1));
        let named = |name: &str| events.iter().filter(|event| event["name"] == name).collect::<Vec<_>>();
        assert_eq!(named("thread_name").len(), 2);
        assert_eq!(named("process_name")[0]["args"]["name"], "rank 1 on digits-0");
        for step in 3..=5 {
            assert_eq!(named(&format!("step {step}")).len(), 1);
        }
        assert_eq!(events.len(), 4 + 3 * 3);
        let (outer, inner) = (named("step 4")[0], named("forward second")[1]);
        let time = |event: &Value, name: &str| event[name].as_f64().unwrap();
        assert!(time(outer, "ts") <= time(inner, "ts") && outer["tid"] == inner["tid"]);
        let end = |event: &Value| time(event, "ts") + time(event, "dur");
        assert!(end(inner) <= end(outer) + 1.0, "spans of a thread lie within each other");
        assert_eq!(named("reduce gradients")[0]["tid"], 2);
        assert_eq!(named("reduce gradients")[0]["args"]["bytes"], 64);
    }

    #[test]
    fn a_training_that_ends_early_leaves_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let recorder = Recorder::new(&path, process(0, 1), 0, 20).unwrap();
        recorder.begin_step().unwrap();
        drop(recorder.span(Track::Compute, "load data", Detail::None));
        assert_eq!(recorder.write().unwrap(), Some(&*path));
        assert_eq!(events(&path).len(), 5);
        let absent = Recorder::new(Path::new("/proc/none/trace.json"), process(0, 1), 0, 1).unwrap_err();
        assert!(absent.to_string().contains("/proc/none"), "{absent}");
    }

    #[test]
    fn memory_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let recorder = Recorder::new(&path, process(0, 1), 0, 1).unwrap();
        recorder.begin_step().unwrap();
        for _ in 0..MOST_SPANS + 3 {
            drop(recorder.span(Track::Compute, "forward", Detail::Unit(0)));
        }
        let kept = recorder.0.as_ref().unwrap().kept.lock();
        assert_eq!((kept.spans.len(), kept.left_out), (MOST_SPANS, 3));
    }

    #[test]
    fn without_a_file_nothing_is_recorded() {
        let recorder = Recorder::default();
        assert_eq!(recorder.begin_step().unwrap(), None);
        assert!(recorder.span(Track::Compute, "step", Detail::None).0.is_none());
        assert_eq!(recorder.write().unwrap(), None);
    }
}
