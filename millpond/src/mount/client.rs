//! Client of a mount's server: HTTP over its unix socket.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use millpond_cache::dataset::{LoadOptions, LoadProgress};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::control::{LoadReport, RefreshResponse, StatsResponse};
use super::run_directory::RunDirectory;

/// Longest response that is read into memory.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// How long a command waits for the next server after one has exited.
const SERVER_RESTART_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between two attempts to connect.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

/// Client of the current server of one mount.
#[derive(Debug)]
pub(crate) struct Client {
    run_dir: RunDirectory,
    /// Tasks that drive the connections.
    connections: JoinSet<()>,
}

impl Client {
    pub(crate) fn new(run_dir: RunDirectory) -> Self {
        Self {
            run_dir,
            connections: JoinSet::new(),
        }
    }

    pub(crate) async fn stats(&mut self) -> Result<StatsResponse> {
        self.request(Method::GET, "/stats").await
    }

    pub(crate) async fn refresh(&mut self) -> Result<RefreshResponse> {
        self.request(Method::POST, "/refresh").await
    }

    /// Prefetches the files that `options` select and passes its progress to `progress`. If the server is replaced
    /// meanwhile, the request is sent again: cached files are not fetched twice.
    pub(crate) async fn warm(
        &mut self,
        options: &LoadOptions,
        mut progress: impl FnMut(&LoadProgress),
    ) -> Result<LoadProgress> {
        let body = Bytes::from(serde_json::to_vec(options)?);
        loop {
            let response = self.send(Method::POST, "/warm", body.clone()).await?;
            let mut body = check_status(response).await?.into_body();
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { break };
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    match serde_json::from_slice(&line).context("failed to parse the server's progress")? {
                        LoadReport::Progress(current) => progress(&current),
                        LoadReport::Ended(end) => {
                            progress(&end);
                            return Ok(end);
                        }
                        LoadReport::Failed { reason } => bail!("{reason}"),
                    }
                }
                if rest.len() > MAX_RESPONSE_BYTES {
                    bail!("a progress line of the server is too long");
                }
            }
        }
    }

    async fn request<T: DeserializeOwned>(&mut self, method: Method, path: &str) -> Result<T> {
        let response = self.send(method, path, Bytes::new()).await?;
        let bytes = read_body(check_status(response).await?).await?;
        serde_json::from_slice(&bytes)
            .context("failed to parse the server's response: is it another version?")
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "millpond")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .context("failed to build a request")?;
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("failed to open an HTTP connection to the server")?;
        self.connections.spawn(async move {
            // A failure is returned where the response is read.
            let _ended = connection.await;
        });
        sender
            .send_request(request)
            .await
            .context("the mount's server exited before it responded")
    }

    /// Connects to the server, or to the next one if it has just exited.
    async fn connect(&self) -> Result<UnixStream> {
        let socket = self.run_dir.control();
        let attempts = async {
            loop {
                match UnixStream::connect(&socket).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) if !self.run_dir.is_claimed() => {
                        return Err(error)
                            .context("the mount's processes have exited: unmount it and mount it again");
                    }
                    Err(_not_yet) => tokio::time::sleep(ATTEMPT_INTERVAL).await,
                }
            }
        };
        tokio::time::timeout(SERVER_RESTART_TIMEOUT, attempts)
            .await
            .context("no server of the mount is running: see the log in its run directory")
            .with_context(|| format!("failed to reach {}", socket.display()))?
    }
}

async fn check_status(response: Response<Incoming>) -> Result<Response<Incoming>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let bytes = read_body(response).await?;
    match String::from_utf8_lossy(&bytes).trim() {
        "" => bail!("the server responded {status}"),
        reason => bail!("{reason}"),
    }
}

async fn read_body(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_RESPONSE_BYTES);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => bail!("the server's response was cut off: {error}"),
    }
}

/// Runs `work` on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")?
        .block_on(work)
}
