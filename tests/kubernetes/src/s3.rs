//! The source: versitygw, which checks its credentials, at an address that pods reach.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use origin::{Client, Credentials, Versitygw, data};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What the server's log calls a request for an object's bytes.
const GET: &str = " s3_GetObject ";

/// A server with credentials of its own.
#[derive(Debug)]
pub struct S3 {
    server: Versitygw,
    client: Client,
    runtime: tokio::runtime::Runtime,
    directory: TempDir,
}

/// A bucket, and what every file in it holds.
#[derive(Debug)]
pub struct Bucket<'a> {
    s3: &'a S3,
    /// Its name.
    pub name: String,
    files: BTreeMap<String, (u64, u64)>,
}

impl S3 {
    /// Starts a server with the credentials `key` and `secret`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(address: Ipv4Addr, key: &str, secret: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("millpond-s3-").tempdir()?;
        let data = directory.path().join("data");
        std::fs::create_dir(&data)?;
        let credentials = Credentials::new(key, secret);
        let server = Versitygw::start_on(address, &data, &credentials, &directory.path().join("access.log"))
            .context("failed to start versitygw: scripts/deps")?;
        let client = Client::new(server.url(), Some(credentials));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            server,
            client,
            runtime,
            directory,
        })
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Its access key and secret.
    pub fn credentials(&self) -> &Credentials {
        self.server.credentials()
    }

    /// A Secret with its credentials, by object_store's names.
    pub fn secret(&self, name: &str) -> String {
        let Credentials {
            access_key,
            secret_key,
            ..
        } = self.credentials();
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{aws_access_key_id: {access_key}, \
             aws_secret_access_key: {secret_key}}}\n---\n"
        )
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn bucket(&self, name: &str) -> Result<Bucket<'_>> {
        let reply = self.runtime.block_on(self.client.create_bucket(name))?;
        ensure!(reply.status.is_success(), "no bucket {name}: {}", reply.status);
        Ok(Bucket {
            s3: self,
            name: name.to_owned(),
            files: BTreeMap::new(),
        })
    }

    /// Requests for objects' bytes that the server has answered so far.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn gets(&self) -> Result<usize> {
        let log = std::fs::read_to_string(self.directory.path().join("access.log"))?;
        Ok(log.lines().filter(|line| line.contains(GET)).count())
    }
}

impl Bucket<'_> {
    /// Puts a file that follows from `seed`.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn put(&mut self, key: &str, seed: u64, size: u64) -> Result<()> {
        let put = self.s3.client.put(&self.name, key, data::bytes(seed, 0..size));
        let reply = self.s3.runtime.block_on(put)?;
        ensure!(reply.status.is_success(), "failed to put {key}: {}", reply.status);
        self.files.insert(key.to_owned(), (seed, size));
        Ok(())
    }

    /// Puts `count` files of `size` bytes below `prefix`.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_many(&mut self, prefix: &str, count: u64, size: u64) -> Result<()> {
        (0..count).try_for_each(|file| self.put(&format!("{prefix}/{file:05}"), file + size, size))
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn delete(&mut self, key: &str) -> Result<()> {
        let reply = self.s3.runtime.block_on(self.s3.client.delete(&self.name, key))?;
        ensure!(
            reply.status.is_success(),
            "failed to delete {key}: {}",
            reply.status
        );
        self.files.remove(key);
        Ok(())
    }

    /// Its server.
    pub const fn s3(&self) -> &S3 {
        self.s3
    }

    /// How many files it has.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The bytes of all its files.
    pub fn total_bytes(&self) -> u64 {
        self.files.values().map(|(_, size)| size).sum()
    }

    /// What `sha256sum -c` is to find of its files, shown below `directory`.
    pub fn sums(&self, directory: &str) -> String {
        let line = |(key, (seed, size)): (&String, &(u64, u64))| {
            let sum = HEXLOWER.encode(&Sha256::digest(data::bytes(*seed, 0..*size)));
            format!("{sum}  {directory}/{key}\n")
        };
        self.files.iter().map(line).collect()
    }
}
