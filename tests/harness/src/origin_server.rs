//! The tests' S3 server, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use hyper::Method;
use origin::{Client, Counters, Reply};
use tokio::runtime::Runtime;

/// A running server. It ends when this is dropped, or this process ends.
#[derive(Debug)]
pub struct OriginServer {
    process: Child,
    endpoint: String,
}

impl OriginServer {
    /// Starts `program` with these sets of objects; their bytes lie mapped in `data`, or are made while they are sent.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path, objects: &[String], data: Option<&Path>) -> Result<Self> {
        let failed = || format!("failed to start {}", program.display());
        let mut command = Command::new(program);
        for set in objects {
            command.arg("--objects").arg(set);
        }
        if let Some(directory) = data {
            command.arg("--data").arg(directory);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(failed)?;
        let mut endpoint = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output)
                .read_line(&mut endpoint)
                .with_context(failed)?;
        }
        let server = Self {
            process,
            endpoint: endpoint.trim().to_owned(),
        };
        ensure!(
            !server.endpoint.is_empty(),
            "{}: it did not say where it listens",
            failed()
        );
        Ok(server)
    }

    /// Its endpoint, for path-style requests.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its address: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// What it counted since its start or the last [`reset`](Self::reset).
    ///
    /// # Errors
    /// It does not respond.
    pub fn counters(&self, runtime: &Runtime) -> Result<Counters> {
        let reply = self.send(runtime, Method::GET, "/-/counters")?;
        serde_json::from_slice(&reply.body).context("the server's counters are no JSON")
    }

    /// Sets its counters to zero.
    ///
    /// # Errors
    /// It does not respond.
    pub fn reset(&self, runtime: &Runtime) -> Result<()> {
        self.send(runtime, Method::POST, "/-/reset").map(drop)
    }

    fn send(&self, runtime: &Runtime, method: Method, path: &str) -> Result<Reply> {
        let client = Client::new(self.endpoint.clone(), None);
        runtime
            .block_on(client.send(method, path, &[], Vec::new()))
            .with_context(|| format!("the server did not answer {path}"))
    }
}

impl Drop for OriginServer {
    fn drop(&mut self) {
        // It ends with its input; what it holds in memory need not be put in order.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
