//! The server's command line.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use crate::{Body, Credentials, Origin, OriginOptions, data};

/// Objects in a directory, by default.
const THOUSAND: NonZeroU64 = NonZeroU64::new(1000).expect("it is not zero");

/// An S3 server for tests and measurements.
#[derive(Debug, Parser)]
#[command(name = "millpond-origin")]
pub struct Command {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// Threads that serve.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Demands signatures of this access key.
    #[arg(long, requires = "secret_key")]
    access_key: Option<String>,
    /// Its secret.
    #[arg(long, requires = "access_key")]
    secret_key: Option<String>,
    /// Objects from seeds: BUCKET/PREFIX,COUNT,SIZE[,SEED[,EACH]]. Object N is BUCKET/PREFIX and N in eight digits, behind
    /// a directory for EACH of them (by default a thousand), with the data of SEED + N.
    #[arg(long)]
    objects: Vec<Generated>,
    /// Keeps the objects' data in a file of this directory and serves it from a map; else it is made while it is sent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Milliseconds before each answer.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// Bytes per second of all answers together.
    #[arg(long)]
    bandwidth: Option<u64>,
}

/// A set of objects from seeds.
#[derive(Debug, Clone)]
struct Generated {
    bucket: String,
    prefix: String,
    count: u64,
    size: u64,
    seed: u64,
    /// Objects in a directory.
    each: NonZeroU64,
}

impl FromStr for Generated {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut fields = text.split(',');
        let mut field = |name: &str| fields.next().with_context(|| format!("{name} is missing"));
        let (bucket, prefix) = field("BUCKET/PREFIX")?
            .split_once('/')
            .context("it is BUCKET/PREFIX")?;
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        let (count, size) = (field("COUNT")?.parse()?, field("SIZE")?.parse()?);
        let seed = fields.next().map_or(Ok(1), str::parse)?;
        let each = fields.next().map_or(Ok(THOUSAND), str::parse)?;
        Ok(Self {
            bucket,
            prefix,
            count,
            size,
            seed,
            each,
        })
    }
}

impl Generated {
    fn key(&self, index: u64) -> Vec<u8> {
        format!("{}{:05}/{index:08}", self.prefix, index / self.each).into_bytes()
    }

    /// Writes all data into one file and maps it.
    fn mapped(&self, directory: &Path) -> anyhow::Result<Body> {
        /// Written at once.
        const PIECE: u64 = 1 << 20;
        let path = directory.join(format!(
            "{}-{}-{}-{}",
            self.bucket, self.seed, self.count, self.size
        ));
        let mut file = io::BufWriter::new(std::fs::File::create(&path)?);
        for index in 0..self.count {
            for start in (0..self.size).step_by(1 << 20) {
                let range = start..(start + PIECE).min(self.size);
                file.write_all(&data::bytes(self.seed.wrapping_add(index), range))?;
            }
        }
        drop(file.into_inner()?);
        Ok(Body::mapped(&path)?)
    }

    fn put_into(&self, origin: &Origin, directory: Option<&Path>) -> anyhow::Result<()> {
        let mapped = directory.map(|directory| self.mapped(directory)).transpose()?;
        let body = |index: u64| match &mapped {
            Some(all) => Body::Bytes(all.slice(index * self.size..(index + 1) * self.size)),
            None => Body::generated(self.seed.wrapping_add(index), self.size),
        };
        origin.put_all(
            &self.bucket,
            (0..self.count).map(|index| (self.key(index), body(index))),
        );
        Ok(())
    }
}

impl Command {
    /// Serves until the standard input ends.
    ///
    /// # Errors
    /// When it cannot listen or keep its data.
    pub fn run(self) -> anyhow::Result<()> {
        let credentials = self.access_key.zip(self.secret_key);
        let options = OriginOptions {
            credentials: credentials.map(|(access, secret)| Credentials::new(access, secret)),
            address: self.address,
            threads: self.threads,
        };
        let origin =
            Origin::spawn(options).with_context(|| format!("failed to listen at {}", self.address))?;
        for objects in &self.objects {
            objects
                .put_into(&origin, self.data.as_deref())
                .context("failed to make the objects")?;
        }
        origin.set_latency(Duration::from_millis(self.latency));
        origin.set_bandwidth(self.bandwidth);
        writeln!(io::stdout(), "{}", origin.url())?;
        io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    }
}
