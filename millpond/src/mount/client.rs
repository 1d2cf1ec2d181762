//! Asking a mount's server: HTTP over its unix socket.

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

use super::control::{LoadReport, RefreshAnswer, StatsAnswer};
use super::run_directory::Place;

/// Longest answer that is read whole.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How long a server that has just died may take to be replaced.
const SERVER_RESTART_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts to reach one.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

/// The server of one mount, whichever it is at the moment.
#[derive(Debug)]
pub(crate) struct Client {
    place: Place,
    /// Owns the connections.
    connections: JoinSet<()>,
}

impl Client {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            connections: JoinSet::new(),
        }
    }

    pub(crate) async fn stats(&mut self) -> Result<StatsAnswer> {
        self.whole(Method::GET, "/stats").await
    }

    pub(crate) async fn refresh(&mut self) -> Result<RefreshAnswer> {
        self.whole(Method::POST, "/refresh").await
    }

    /// Warms what `options` select and shows how far it is. A server that is replaced meanwhile is asked again: what
    /// is here is not fetched twice.
    pub(crate) async fn warm(
        &mut self,
        options: &LoadOptions,
        mut progress: impl FnMut(&LoadProgress),
    ) -> Result<LoadProgress> {
        let body = Bytes::from(serde_json::to_vec(options)?);
        loop {
            let response = self.send(Method::POST, "/warm", body.clone()).await?;
            let mut body = succeeded(response).await?.into_body();
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { break };
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    match serde_json::from_slice(&line).context("the server's progress is not understood")? {
                        LoadReport::Progress(shown) => progress(&shown),
                        LoadReport::Ended(end) => {
                            progress(&end);
                            return Ok(end);
                        }
                        LoadReport::Failed { reason } => bail!("{reason}"),
                    }
                }
                if rest.len() > MAX_ANSWER_BYTES {
                    bail!("the server's progress has no end");
                }
            }
        }
    }

    async fn whole<T: DeserializeOwned>(&mut self, method: Method, path: &str) -> Result<T> {
        let response = self.send(method, path, Bytes::new()).await?;
        let bytes = read(succeeded(response).await?).await?;
        serde_json::from_slice(&bytes)
            .context("the server's answer is not understood: is it another version?")
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "millpond")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .context("failed to make a request")?;
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("failed to speak to the server")?;
        self.connections.spawn(async move {
            // Its failure shows where the answer is read.
            let _ended = connection.await;
        });
        sender
            .send_request(request)
            .await
            .context("the mount's server ended before it answered")
    }

    /// Connects to the server, or to the next one where it has just died.
    async fn connect(&self) -> Result<UnixStream> {
        let socket = self.place.control();
        let attempts = async {
            loop {
                match UnixStream::connect(&socket).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) if !self.place.is_claimed() => {
                        return Err(error)
                            .context("the mount's processes are gone: unmount it and mount it again");
                    }
                    Err(_not_yet) => tokio::time::sleep(ATTEMPT_INTERVAL).await,
                }
            }
        };
        tokio::time::timeout(SERVER_RESTART_TIMEOUT, attempts)
            .await
            .context("no server of the mount is up; its log may say why")
            .with_context(|| format!("failed to reach {}", socket.display()))?
    }
}

async fn succeeded(response: Response<Incoming>) -> Result<Response<Incoming>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let bytes = read(response).await?;
    match String::from_utf8_lossy(&bytes).trim() {
        "" => bail!("the server answers {status}"),
        reason => bail!("{reason}"),
    }
}

async fn read(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => bail!("the server's answer broke off: {error}"),
    }
}

/// Runs what a command asks of a server.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")?
        .block_on(work)
}
