//! The real S3 server, versitygw, on a directory whose folders are its buckets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::options::Credentials;

const NAME: &str = "versitygw";
/// Far longer than a start takes on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A free port may be taken between being found and being used.
const PORT_TRIES: usize = 8;

/// A running versitygw; it is killed when this is dropped.
#[derive(Debug)]
pub struct Versitygw {
    server: Child,
    address: SocketAddr,
    credentials: Credentials,
}

impl Versitygw {
    /// Starts it on `directory` and a free port of the loopback; returns when it accepts connections.
    ///
    /// # Errors
    /// `NotFound` when there is no such program (it names where it was looked for), and when it does not start.
    pub fn start(directory: &Path, credentials: &Credentials) -> io::Result<Self> {
        Self::try_ports(Ipv4Addr::LOCALHOST, directory, credentials, None)
    }

    /// The same, with a line for each request in `access_log`, in the form of S3's own server access logs. Bytes of
    /// streamed answers are not in it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_logged(directory: &Path, credentials: &Credentials, access_log: &Path) -> io::Result<Self> {
        Self::try_ports(Ipv4Addr::LOCALHOST, directory, credentials, Some(access_log))
    }

    /// As [`Self::start_logged`], on a free port of another address of this machine.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(
        ip: Ipv4Addr,
        directory: &Path,
        credentials: &Credentials,
        access_log: &Path,
    ) -> io::Result<Self> {
        Self::try_ports(ip, directory, credentials, Some(access_log))
    }

    fn try_ports(
        ip: Ipv4Addr,
        directory: &Path,
        credentials: &Credentials,
        access_log: Option<&Path>,
    ) -> io::Result<Self> {
        let program = Self::find()?;
        let mut last = io::Error::other("not tried");
        for _try in 0..PORT_TRIES {
            let address = free_address(ip)?;
            match Self::start_at(&program, directory, credentials, access_log, address) {
                Ok(started) => return Ok(started),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Finds the program: what `MILLPOND_VERSITYGW` names, if it is there, else in `build/tools/bin` of the workspace, `~/go/bin`, `PATH`.
    ///
    /// # Errors
    /// `NotFound` with the command that installs it.
    pub fn find() -> io::Result<PathBuf> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .map(Path::to_path_buf);
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let named = std::env::var_os("MILLPOND_VERSITYGW").map(PathBuf::from);
        let places = workspace.map(|root| root.join("build/tools/bin")).into_iter();
        let places = places
            .chain(home.map(|home| home.join("go/bin")))
            .chain(std::env::split_paths(&path));
        named
            .into_iter()
            .chain(places.map(|place| place.join(NAME)))
            .find(|program| program.is_file())
            .ok_or_else(|| {
                let install = "go install github.com/versity/versitygw/cmd/versitygw@v1.8.0";
                io::Error::new(io::ErrorKind::NotFound, format!("there is no {NAME}: {install}"))
            })
    }

    /// The endpoint, for path-style requests.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The credentials that it was started with.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The process, for measurements.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    fn start_at(
        program: &Path,
        directory: &Path,
        credentials: &Credentials,
        access_log: Option<&Path>,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--port", &address.to_string(), "--keep-alive", "--quiet"]);
        if let Some(log) = access_log {
            command.arg("--access-log").arg(log);
        }
        let server = command
            .arg("posix")
            .arg(directory)
            // A Ctrl-C is for the process that started it, which kills it on drop.
            .process_group(0)
            .env("ROOT_ACCESS_KEY", &credentials.access_key)
            .env("ROOT_SECRET_KEY", &credentials.secret_key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // From here on a failure drops the value and so kills the process.
        let mut started = Self {
            server,
            address,
            credentials: credentials.clone(),
        };
        started.wait()?;
        Ok(started)
    }

    fn wait(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.server.try_wait()? {
                return Err(io::Error::other(format!("{NAME} ended at its start: {status}")));
            }
            match TcpStream::connect_timeout(&self.address, Duration::from_secs(1)) {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > START_LIMIT => return Err(error),
                Err(_) => pause(),
            }
        }
    }
}

impl Drop for Versitygw {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}

fn free_address(ip: Ipv4Addr) -> io::Result<SocketAddr> {
    TcpListener::bind((ip, 0))?.local_addr()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server says nothing when it listens: it is asked until it answers"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
