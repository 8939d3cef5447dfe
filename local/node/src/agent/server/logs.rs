//! `/containerLogs`: the lines of a container's log file, and on request those still to come.

use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_err as fs;
use futures::StreamExt as _;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::super::context::Context;
use super::super::log_files::parse;
use super::super::record::Record;
use super::{Body, text};
use crate::sys::descriptor::readable;

/// Chunks read ahead of a slow reader.
const READ_AHEAD: usize = 8;
const CHUNK: usize = 32 << 10;
/// A follower looks again after this time even if the kernel said nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What of a log is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Query {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<usize>,
}

impl Query {
    fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let wrong = || format!("query parameter {name} cannot be \"{value}\"");
            let flag = || matches!(value, "true" | "1" | "");
            let number = || value.parse::<i64>().ok().filter(|number| *number >= 0).ok_or_else(wrong);
            match name {
                "follow" => query.follow = flag(),
                "previous" => query.previous = flag(),
                "timestamps" => query.timestamps = flag(),
                "tailLines" => query.tail = Some(number()? as usize),
                "limitBytes" => query.limit = Some(number()? as usize),
                "sinceSeconds" => query.since = now.checked_sub(SignedDuration::from_secs(number()?)).ok(),
                "sinceTime" => {
                    let value = value.replace("%3A", ":").replace("%3a", ":").replace("%2B", "+");
                    query.since = Some(value.parse().map_err(|_| wrong())?);
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

pub(super) fn answer(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Response<Body> {
    let query = match Query::parse(query, Timestamp::now()) {
        Ok(query) => query,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(folder) = find(context, namespace, pod, container) else {
        let message = format!("container \"{container}\" in pod \"{pod}\" has no log yet");
        return text(StatusCode::NOT_FOUND, message);
    };
    let mut attempts = attempts(&folder);
    let wanted = if query.previous { attempts.len().checked_sub(2) } else { attempts.len().checked_sub(1) };
    let Some(path) = wanted.map(|index| attempts.swap_remove(index).1) else {
        let message = format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
        return text(StatusCode::BAD_REQUEST, message);
    };
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let alive = query.follow && !query.previous;
    let directory = Record::load_all(&context.pods_dir())
        .into_iter()
        .find(|(_, record)| record.namespace == namespace && record.name == pod)
        .map(|(directory, _)| directory);
    tokio::spawn(async move {
        let mut reader = Reader { path, query, sent: 0, sender };
        if let Err(error) = reader.run(alive, directory.as_deref()).await {
            tracing::debug!(%error, "a log could not be read to its end");
        }
    });
    let frames = tokio_stream_of(receiver).map(|bytes| Ok(Frame::data(bytes)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

fn tokio_stream_of(mut receiver: mpsc::Receiver<Bytes>) -> impl futures::Stream<Item = Bytes> + Send + Sync {
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// The newest pod of that name that has a log of the container.
fn find(context: &Context, namespace: &str, pod: &str, container: &str) -> Option<PathBuf> {
    if [namespace, pod, container].iter().any(|name| name.is_empty() || name.starts_with('.')) {
        return None;
    }
    let prefix = format!("{namespace}_{pod}_");
    let folders = fs::read_dir(context.state_dir.join("logs")).ok()?.flatten();
    folders
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| {
            let folder = entry.path().join(container);
            let changed = fs::metadata(&folder).ok()?.modified().ok()?;
            Some((changed, folder))
        })
        .max()
        .map(|(_, folder)| folder)
}

fn attempts(folder: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut list: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            Some((name.to_str()?.strip_suffix(".log")?.parse().ok()?, entry.path()))
        })
        .collect();
    list.sort();
    list
}

struct Reader {
    path: PathBuf,
    query: Query,
    sent: usize,
    sender: mpsc::Sender<Bytes>,
}

impl Reader {
    async fn run(&mut self, follow: bool, pod: Option<&Path>) -> io::Result<()> {
        let watch = if follow { Some(Watch::new(&self.path)?) } else { None };
        let mut rotated = rotated(&self.path);
        let mut file = io::BufReader::new(fs::File::open(&self.path)?);
        if let Some(tail) = self.query.tail {
            // With older files the tail may begin in one of them.
            let mut lines = Vec::new();
            for path in rotated.drain(..) {
                lines.extend(read_lines(&mut io::BufReader::new(fs::File::open(path)?))?);
            }
            lines.extend(read_lines(&mut file)?);
            let begin = tail_begin(&lines, tail);
            self.send(&lines[begin..]).await?;
        } else {
            for path in rotated.drain(..) {
                let mut older = io::BufReader::new(fs::File::open(path)?);
                while self.some(&mut older).await? {}
            }
        }
        loop {
            // Asked before the read: what is written until the end is then seen.
            let ended = !follow || ended(&self.path, pod);
            while self.some(&mut file).await? {}
            if ended || self.sender.is_closed() {
                return Ok(());
            }
            if let Some(watch) = &watch {
                tokio::select! {
                    () = watch.changed() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = self.sender.closed() => return Ok(()),
                }
            }
            if was_replaced(&file, &self.path) {
                while self.some(&mut file).await? {}
                file = io::BufReader::new(fs::File::open(&self.path)?);
            }
        }
    }

    /// Sends some lines; `false` at the end of the file.
    async fn some(&mut self, file: &mut io::BufReader<fs::File>) -> io::Result<bool> {
        let mut lines = Vec::new();
        let mut size = 0;
        while size < CHUNK {
            let Some(line) = read_line(file)? else { break };
            size += line.len();
            lines.push(line);
        }
        self.send(&lines).await?;
        Ok(!lines.is_empty())
    }

    async fn send(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        let mut out = Vec::new();
        for entry in lines.iter().filter_map(|line| parse(line)) {
            if let Some(since) = self.query.since
                && entry.timestamp().is_none_or(|time| time < since)
            {
                continue;
            }
            if self.query.timestamps {
                out.extend_from_slice(entry.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(entry.text);
            if !entry.partial {
                out.push(b'\n');
            }
        }
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        if let Some(limit) = self.query.limit {
            out.truncate(limit - self.sent);
        }
        self.sent += out.len();
        if !out.is_empty() {
            self.sender.send(Bytes::from(out)).await.map_err(|_| closed())?;
        }
        if self.query.limit.is_some_and(|limit| self.sent >= limit) { Err(closed()) } else { Ok(()) }
    }
}

/// Older parts of the log, oldest first.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    (1..10).rev().map(numbered).filter(|path| path.exists()).collect()
}

fn tail_begin(lines: &[Vec<u8>], tail: usize) -> usize {
    let mut left = tail;
    let mut begin = lines.len();
    for (index, line) in lines.iter().enumerate().rev() {
        let whole = parse(line).is_none_or(|entry| !entry.partial);
        if whole {
            if left == 0 {
                break;
            }
            left -= 1;
        }
        begin = index;
    }
    begin
}

fn read_lines(file: &mut io::BufReader<fs::File>) -> io::Result<Vec<Vec<u8>>> {
    std::iter::from_fn(|| read_line(file).transpose()).collect()
}

/// The next whole line without its end; what is still being written is left for later.
fn read_line(file: &mut io::BufReader<fs::File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let count = file.read_until(b'\n', &mut line)?;
    if line.pop() == Some(b'\n') {
        return Ok(Some(line));
    }
    file.seek_relative(-i64::try_from(count).unwrap_or(0))?;
    Ok(None)
}

fn was_replaced(file: &io::BufReader<fs::File>, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.get_ref().metadata(), fs::metadata(path)) {
        (Ok(open), Ok(current)) => open.ino() != current.ino(),
        _ => false,
    }
}

/// The container has ended: the writer leaves a mark beside the log, or the pod is gone.
fn ended(path: &Path, pod: Option<&Path>) -> bool {
    path.with_extension("end").exists()
        || !path.exists()
        || pod.is_none_or(|directory| Record::load(directory).map_or(true, |record| record.finished))
}

struct Watch(AsyncFd<std::os::fd::OwnedFd>);

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        let descriptor = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let folder = path.parent().unwrap_or(path);
        let flags =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&descriptor, folder, flags)?;
        Ok(Self(readable(descriptor)?))
    }

    /// Returns when something in the folder changed.
    async fn changed(&self) {
        if let Ok(mut ready) = self.0.readable().await {
            let mut buffer = [0; 4096];
            while rustix::io::read(self.0.get_ref(), &mut buffer).is_ok_and(|count| count > 0) {}
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_checked() {
        let now = Timestamp::from_second(1000).unwrap();
        let query = Query::parse("follow=true&tailLines=5&&sinceSeconds=10&x=y", now).unwrap();
        let since = Some(Timestamp::from_second(990).unwrap());
        assert_eq!(query, Query { follow: true, tail: Some(5), since, ..Query::default() });
        assert!(Query::parse("tailLines=-1", now).is_err());
        assert_eq!(
            Query::parse("sinceTime=1970-01-01T00%3A00%3A05Z", now).unwrap().since,
            Some(Timestamp::from_second(5).unwrap())
        );
    }

    #[test]
    fn the_tail_counts_whole_lines() {
        let line = |tag: char, text: &str| format!("2026-01-01T00:00:00Z stdout {tag} {text}").into_bytes();
        let lines = [line('F', "a"), line('P', "b"), line('F', "c"), line('F', "d")];
        assert_eq!((tail_begin(&lines, 1), tail_begin(&lines, 2), tail_begin(&lines, 9)), (3, 1, 0));
        assert_eq!(tail_begin(&lines, 0), 4);
    }
}
