//! A real S3 server, versitygw, and what it sent by its own account, which is not Millpond's.
//!
//! Its access log has the requests, and the bytes of all responses but those to GETs of objects. These are the rest of what
//! the kernel counted for the server's process: all that it wrote (`wchar` of `/proc/PID/io`), heads of responses
//! included. That is right while nothing is uploaded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use origin::{Credentials, Versitygw};
use rand::distr::{Alphanumeric, SampleString};

use crate::mounted::{MountCommand, View};
use crate::scratch::Scratch;

/// A server with one directory for its buckets. It is killed when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    process: Versitygw,
    access_log: PathBuf,
}

/// What a server has sent since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Bytes that it wrote.
    pub bytes: u64,
    /// Requests for objects.
    pub gets: u64,
}

impl S3Server {
    /// Starts it on a free port of the loopback, with credentials made for it.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(buckets: &Path, access_log: PathBuf) -> Result<Self> {
        let mut random = rand::rng();
        let credentials = Credentials::new(
            Alphanumeric.sample_string(&mut random, 20),
            Alphanumeric.sample_string(&mut random, 40),
        );
        let process = Versitygw::start_logged(buckets, &credentials, &access_log)
            .context("failed to start the S3 server: run scripts/deps")?;
        Ok(Self { process, access_log })
    }

    /// Its endpoint, for path-style requests.
    pub fn url(&self) -> String {
        self.process.url()
    }

    /// Its credentials.
    pub fn credentials(&self) -> &Credentials {
        self.process.credentials()
    }

    /// A mount of a bucket at `scratch/mnt` with the cache in `scratch/cache`. Credentials go through the environment, as
    /// they would at a person's.
    ///
    /// # Panics
    /// As [`MountCommand::new`].
    pub fn mount(&self, scratch: &Scratch, bucket: &str, view: View) -> MountCommand {
        MountCommand::new(scratch, &format!("s3://{bucket}"), view)
            .with("--endpoint", self.url())
            .credentials(self.credentials())
    }

    /// What it has sent so far.
    ///
    /// # Errors
    /// Its log, or what the kernel counts, cannot be read.
    pub fn traffic(&self) -> Result<Traffic> {
        let pid = i32::try_from(self.process.pid()).context("a process number")?;
        let io = procfs::process::Process::new(pid)
            .and_then(|process| process.io())
            .context("failed to read what the kernel counts for the S3 server")?;
        let log = fs::read_to_string(&self.access_log)
            .with_context(|| format!("failed to read {}", self.access_log.display()))?;
        let mut traffic = Traffic::default();
        // The log is written too.
        let mut others = u64::try_from(log.len())?;
        for line in log.lines() {
            match Request::parse(line) {
                Some(request) if request.operation == "s3_GetObject" => traffic.gets += 1,
                Some(request) => others += request.bytes,
                None => {}
            }
        }
        traffic.bytes = io.wchar.saturating_sub(others);
        Ok(traffic)
    }
}

/// A line of the access log.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    operation: &'a str,
    /// Of the response's body; 0 where it was streamed.
    bytes: u64,
}

impl<'a> Request<'a> {
    /// Reads a line in the form of S3's server access logs: `... OPERATION KEY URI STATUS ERROR BYTES ...`.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ').skip_while(|word| !word.starts_with("s3_"));
        let operation = words.next()?;
        let bytes = words.nth(4)?.parse().ok()?;
        Some(Self { operation, bytes })
    }
}

impl Traffic {
    /// What was sent after `earlier`.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            gets: self.gets.saturating_sub(earlier.gets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_access_log_has_operation_and_bytes() {
        let line = "key bucket [25/November/2026:20:06:16 +0000] 127.0.0.1 key EBXA s3_ListObjectsV2 - \
                    /bucket?list-type=2 200 - 652 0 0 0 - client - id SigV4 - AuthHeader host - arn Yes";
        let expected = Request {
            operation: "s3_ListObjectsV2",
            bytes: 652,
        };
        assert_eq!(Request::parse(line), Some(expected));
        assert_eq!(Request::parse("log starts 2026-11-25 20:06:14 +0000 UTC"), None);
    }
}
