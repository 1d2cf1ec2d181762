//! The plain programs that a cold read is compared with: they fetch from the same server over many connections and write
//! what comes, and do nothing else. None syncs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::data::Set;

/// One GET of the large file.
const RANGE_BYTES: u64 = 8 << 20;

/// Fetches a file of a set over so many connections, range by range, into `target`.
pub(crate) fn fetch_ranges(
    runtime: &Runtime,
    address: &str,
    (set, file): (&Set, &Path),
    target: &Path,
    connections: usize,
) -> Result<()> {
    let size = set.file_bytes();
    let target =
        Arc::new(File::create(target).with_context(|| format!("failed to write {}", target.display()))?);
    let ranges: Vec<(u64, u64)> = (0..size)
        .step_by(usize::try_from(RANGE_BYTES)?)
        .map(|start| (start, (start + RANGE_BYTES).min(size)))
        .collect();
    let (ranges, next) = (Arc::new(ranges), Arc::new(AtomicUsize::new(0)));
    let path = set.request(file);
    in_parallel(runtime, connections, || {
        let (address, path) = (address.to_owned(), path.clone());
        let (ranges, next, target) = (Arc::clone(&ranges), Arc::clone(&next), Arc::clone(&target));
        async move {
            let mut connection = Connection::open(&address).await?;
            while let Some(&(start, end)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut answer = connection.get(&path, Some((start, end))).await?;
                let mut offset = start;
                while let Some(piece) = next_piece(&mut answer).await? {
                    target.write_all_at(&piece, offset)?;
                    offset += u64::try_from(piece.len())?;
                }
                if offset != end {
                    bail!("{path}: the range {start}..{end} ended at {offset}");
                }
            }
            Ok(())
        }
    })
}

/// Fetches these files of a set, in this order, over so many connections, each into its own file below `root`.
pub(crate) fn fetch_files(
    runtime: &Runtime,
    address: &str,
    (set, order): (&Set, &[PathBuf]),
    root: &Path,
    connections: usize,
) -> Result<()> {
    set.make_directories(root)?;
    let files: Vec<(String, PathBuf)> = order
        .iter()
        .map(|file| (set.request(file), root.join(file)))
        .collect();
    let (files, next) = (Arc::new(files), Arc::new(AtomicUsize::new(0)));
    let size = set.file_bytes();
    in_parallel(runtime, connections, || {
        let address = address.to_owned();
        let (files, next) = (Arc::clone(&files), Arc::clone(&next));
        async move {
            let mut connection = Connection::open(&address).await?;
            while let Some((path, target)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut answer = connection.get(path, None).await?;
                let target = File::create(target)?;
                let mut offset = 0;
                while let Some(piece) = next_piece(&mut answer).await? {
                    target.write_all_at(&piece, offset)?;
                    offset += u64::try_from(piece.len())?;
                }
                if offset != size {
                    bail!("{path}: {offset} bytes came, not {size}");
                }
            }
            Ok(())
        }
    })
}

/// Lists a set page after page over one connection, and gives the number of objects.
pub(crate) fn list(runtime: &Runtime, endpoint: &str, set: &Set) -> Result<usize> {
    let client = origin::Client::new(endpoint, None);
    let prefix = format!("{}/", set.name());
    runtime.block_on(async {
        let mut count = 0;
        let mut token = String::new();
        loop {
            let mut parameters = vec![("prefix", prefix.as_str())];
            if !token.is_empty() {
                parameters.push(("continuation-token", token.as_str()));
            }
            let page = client.list(crate::data::BUCKET, &parameters).await?;
            if page.status != StatusCode::OK {
                bail!("the listing was answered with {}", page.status);
            }
            count += page.elements("Key").len();
            token = page.element("NextContinuationToken");
            if token.is_empty() {
                return Ok(count);
            }
        }
    })
}

fn in_parallel<F>(runtime: &Runtime, count: usize, work: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn(work());
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a fetching task panicked")??;
        }
        Ok(())
    })
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
    /// Owns the task that moves the bytes.
    _task: JoinSet<()>,
}

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let failed = || format!("failed to connect to {address}");
        let stream = TcpStream::connect(address).await.with_context(failed)?;
        stream.set_nodelay(true).with_context(failed)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.with_context(failed)?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // How it ends the requests tell.
            let _ended = connection.await;
        });
        Ok(Self {
            sender,
            host: address.to_owned(),
            _task: task,
        })
    }

    async fn get(&mut self, path: &str, range: Option<(u64, u64)>) -> Result<Response<Incoming>> {
        let mut request = Request::get(path).header(header::HOST, &self.host);
        let mut expected = StatusCode::OK;
        if let Some((start, end)) = range {
            request = request.header(header::RANGE, format!("bytes={start}-{}", end.saturating_sub(1)));
            expected = StatusCode::PARTIAL_CONTENT;
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Empty::new())?).await?;
        if answer.status() != expected {
            bail!("{path} was answered with {}", answer.status());
        }
        Ok(answer)
    }
}

async fn next_piece(answer: &mut Response<Incoming>) -> Result<Option<Bytes>> {
    while let Some(frame) = answer.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use origin::{Body, Origin, OriginOptions};

    use super::*;

    fn served(set: &Set) -> Origin {
        let origin = Origin::spawn(OriginOptions::default()).expect("start the origin");
        for (number, file) in (0..).zip(set.files()) {
            let key = format!("{}/{}", set.name(), file.display());
            let body = Body::generated(3 + number, set.file_bytes());
            origin.put(crate::data::BUCKET, key, body);
        }
        origin
    }

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("start a runtime")
    }

    #[test]
    fn a_large_file_is_fetched_right() {
        let set = Set::new("large", 1, (20 << 20) + 5, 3, 1);
        let origin = served(&set);
        let root = tempfile::tempdir().expect("make a directory");
        set.make_directories(root.path()).expect("make directories");
        let target = root.path().join(set.first());
        let address = origin.address().to_string();
        fetch_ranges(&runtime(), &address, (&set, set.first()), &target, 4).expect("fetch");
        set.check(root.path()).expect("the bytes are right");
        assert_eq!(origin.counters().bytes_sent, set.total_bytes());
    }

    #[test]
    fn small_files_are_fetched_right_and_listed() {
        let set = Set::new("small", 150, 30_001, 3, 10);
        let origin = served(&set);
        let root = tempfile::tempdir().expect("make a directory");
        let runtime = runtime();
        let address = origin.address().to_string();
        fetch_files(&runtime, &address, (&set, set.files()), root.path(), 16).expect("fetch");
        set.check(root.path()).expect("the bytes are right");
        assert_eq!(origin.counters().bytes_sent, set.total_bytes());
        assert_eq!(list(&runtime, &origin.url(), &set).expect("list"), 150);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let set = Set::new("small", 2, 100, 3, 10);
        let origin = served(&set);
        origin.delete(crate::data::BUCKET, "small/00000/00000001");
        let root = tempfile::tempdir().expect("make a directory");
        let address = origin.address().to_string();
        let fetched = fetch_files(&runtime(), &address, (&set, set.files()), root.path(), 2);
        let error = format!("{:#}", fetched.expect_err("one is missing"));
        assert!(error.contains("404"), "{error}");
    }
}
