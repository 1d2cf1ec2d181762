//! A real S3 server (versitygw) that checks credentials, as processes of the machine, reachable from nodes and pods.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::http;
use crate::logs::tails;
use crate::tools::tool;
use crate::wait::{POLL_INTERVAL, poll};

const ACCESS_KEY: &str = "millpond-root";
const PORT: u16 = 7_070;
const TLS_PORT: u16 = 7_443;

/// Bytes of randomness in the secret key.
const SECRET_BYTES: usize = 20;

/// It answers in less than a second.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct S3<'a> {
    cluster: &'a Cluster,
}

/// How a server that runs is used.
#[derive(Clone, Debug)]
pub struct S3Access {
    /// Its address, without TLS.
    pub endpoint: String,
    /// Its address with TLS, by the authority of [`ca`](Self::ca).
    pub tls_endpoint: String,
    /// The access key of a user who may do everything.
    pub access_key: String,
    /// That user's secret key.
    pub secret_key: String,
    /// The folders in here are the buckets.
    pub directory: PathBuf,
    /// The certificate of the authority.
    pub ca: PathBuf,
    /// Every request with its bytes.
    pub log: PathBuf,
}

impl<'a> S3<'a> {
    pub(crate) const fn of(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Starts it, if it does not run, with the folders of `directory` as its buckets; `None`: a directory of the
    /// cluster's own. Returns when it answers.
    ///
    /// # Errors
    /// It does not answer: with the last lines of its log.
    pub fn start(self, directory: Option<&Path>) -> Result<S3Access> {
        let state = self.cluster.state();
        let (plain, tls) = (state.process("s3"), state.process("s3-tls"));
        if plain.pid().is_none() {
            let directory = directory.map_or_else(|| state.dir().join("s3"), Path::to_owned);
            fs::create_dir_all(&directory)?;
            fs::create_dir_all(self.users())?;
            if !self.secret_file().exists() {
                create_secret(&self.secret_file())?;
            }
            let directory = directory.canonicalize()?;
            fs::write(self.directory_file(), directory.as_os_str().as_encoded_bytes())?;
            plain.start(self.command(PORT, &directory, &[])?)?;
            let (certificate, key) = (state.pki("s3.crt"), state.pki("s3.key"));
            let certificate = [Path::new("--cert"), &certificate, Path::new("--key"), &key];
            tls.stop(Signal::TERM)?;
            tls.start(self.command(TLS_PORT, &directory, &certificate)?)?;
            let access = self.access()?;
            let health = format!("{}/health", access.endpoint);
            poll("the S3 server", START_TIMEOUT, POLL_INTERVAL, || {
                ensure!(plain.pid().is_some() && tls.pid().is_some(), "it has ended");
                Ok((http::get(&health)?.0 == 200).then_some(()))
            })
            .with_context(|| {
                format!(
                    "failed to start the S3 server{}",
                    tails(&[plain.clone(), tls.clone()])
                )
            })?;
        }
        self.access()
    }

    /// Stops it; its buckets stay.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        for process in ["s3", "s3-tls"] {
            self.cluster.state().process(process).stop(Signal::TERM)?;
        }
        Ok(())
    }

    /// Adds a user who has no right to any bucket.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn add_user(self, access_key: &str, secret_key: &str) -> Result<String> {
        self.admin(&[
            "create-user",
            "--access",
            access_key,
            "--secret",
            secret_key,
            "--role",
            "user",
        ])
    }

    /// Gives a user a bucket.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn set_owner(self, bucket: &str, access_key: &str) -> Result<String> {
        self.admin(&["change-bucket-owner", "--bucket", bucket, "--owner", access_key])
    }

    /// Runs a command of the server's administration, and returns what it prints.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn admin(self, words: &[&str]) -> Result<String> {
        let access = self.access()?;
        let output = Command::new(tool("versitygw"))
            .args([
                "admin",
                "--access",
                &access.access_key,
                "--secret",
                &access.secret_key,
            ])
            .args(["--endpoint-url", &access.endpoint])
            .args(words)
            .output()
            .context("failed to run versitygw: scripts/deps")?;
        ensure!(
            output.status.success(),
            "versitygw admin {} failed: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn access(self) -> Result<S3Access> {
        let (state, host) = (self.cluster.state(), self.cluster.host_address());
        let read = |file: &Path| {
            fs::read_to_string(file).context("the S3 server was never started (millpond-cluster s3 start)")
        };
        Ok(S3Access {
            endpoint: format!("http://{host}:{PORT}"),
            tls_endpoint: format!("https://{host}:{TLS_PORT}"),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: read(&self.secret_file())?,
            directory: read(&self.directory_file())?.into(),
            ca: state.pki("ca.crt"),
            log: state.log("s3-access"),
        })
    }

    fn command(self, port: u16, directory: &Path, more: &[&Path]) -> Result<Command> {
        let mut command = Command::new(tool("versitygw"));
        // Its secret by the environment: every user can read the command line of a process.
        command.env("ROOT_ACCESS_KEY", ACCESS_KEY);
        command.env("ROOT_SECRET_KEY", fs::read_to_string(self.secret_file())?);
        command.args(["--port", &format!("{}:{port}", self.cluster.host_address())]);
        command.args([
            "--keep-alive",
            "--quiet",
            "--health",
            "/health",
            "--iam-cache-disable",
        ]);
        command.arg("--iam-dir").arg(self.users());
        command
            .arg("--access-log")
            .arg(self.cluster.state().log("s3-access"));
        command.args(more).arg("posix").arg(directory);
        Ok(command)
    }

    fn users(self) -> PathBuf {
        self.cluster.state().dir().join("s3-users")
    }

    fn secret_file(self) -> PathBuf {
        self.cluster.state().dir().join("s3-secret")
    }

    fn directory_file(self) -> PathBuf {
        self.cluster.state().dir().join("s3-directory")
    }
}

impl S3Access {
    /// Returns it as lines for a shell's `eval`.
    pub fn exports(&self) -> String {
        let Self {
            endpoint,
            tls_endpoint,
            access_key,
            secret_key,
            directory,
            ca,
            log,
        } = self;
        format!(
            "export MILLPOND_S3_ENDPOINT={endpoint} MILLPOND_S3_TLS_ENDPOINT={tls_endpoint}\n\
             export MILLPOND_S3_ACCESS={access_key} MILLPOND_S3_SECRET={secret_key}\n\
             export MILLPOND_S3_DIRECTORY={} MILLPOND_S3_CA={}\n\
             export MILLPOND_S3_LOG={}\n",
            directory.display(),
            ca.display(),
            log.display()
        )
    }
}

fn create_secret(file: &Path) -> Result<()> {
    let bytes: [u8; SECRET_BYTES] = rand::random();
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut opened = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(file)?;
    Ok(opened.write_all(secret.as_bytes())?)
}
