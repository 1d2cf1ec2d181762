//! What figures share: the programs, the data sets, and what is made from them once and kept until the end of the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::{Millpond, OriginServer, Scratch, View};
use millpond_measure::{Caches, drop_caches, reading};
use rustix::mount::{MountFlags, mount};
use tokio::runtime::Runtime;

use crate::data::{BUCKET, Set};
use crate::memory::Peak;
use crate::mount::{MeasuredCommand, MeasuredMount};

/// Bytes of a small file: 25 pages, so that what is counted in blocks of the disk is what is counted in bytes.
const SMALL_BYTES: u64 = 100 << 10;

/// Where the mounts of a run are, one after the other.
const MOUNT_POINT: &str = "mnt/data";

/// Threads that read what shall be in the page cache.
const WARMING_THREADS: usize = 2;

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) large_bytes: u64,
    pub(crate) small_files: u64,
    pub(crate) walked_files: u64,
    pub(crate) listed_files: u64,
    /// Rounds are so many times fewer.
    pub(crate) haste: usize,
}

impl Sizes {
    /// Those of the goals.
    pub(crate) const FULL: Self = Self {
        large_bytes: 1 << 30,
        small_files: 10_000,
        walked_files: 100_000,
        listed_files: 1_000_000,
        haste: 1,
    };
    /// Just enough that everything runs.
    pub(crate) const QUICK: Self = Self {
        large_bytes: 24 << 20,
        small_files: 300,
        walked_files: 2_000,
        listed_files: 5_000,
        haste: 5,
    };
}

/// Where the programs lie.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) millpond: PathBuf,
    pub(crate) origin: PathBuf,
}

/// See the module's documentation. Fields are dropped in this order: servers end before their data goes.
#[derive(Debug)]
pub(crate) struct Lab {
    millpond: Millpond,
    origin: PathBuf,
    server: Option<OriginServer>,
    pub(crate) runtime: Runtime,
    pub(crate) large: Set,
    pub(crate) small: Set,
    pub(crate) walked: Set,
    pub(crate) listed: Set,
    haste: usize,
    /// The native copies are there.
    copied: bool,
    /// The warm cache is there.
    warm: bool,
    /// What of it was compared.
    checked: Vec<(View, Which)>,
    /// The most memory of each mount so far.
    pub(crate) peaks: Vec<Peak>,
    pub(crate) scratch: Scratch,
}

impl Lab {
    pub(crate) fn new(programs: Programs, scratch: Scratch, sizes: Sizes) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("failed to start the threads of the plain programs")?;
        Ok(Self {
            millpond: Millpond::at(&programs.millpond, &scratch)?,
            origin: programs.origin,
            server: None,
            runtime,
            large: Set::new("data/large", 1, sizes.large_bytes, 1, 1),
            small: Set::new("data/small", sizes.small_files, SMALL_BYTES, 1_000_000, 32),
            walked: Set::new("walked", sizes.walked_files, SMALL_BYTES, 2_000_000, 100),
            listed: Set::new("listed", sizes.listed_files, SMALL_BYTES, 3_000_000, 1_000),
            haste: sizes.haste,
            copied: false,
            warm: false,
            checked: Vec::new(),
            peaks: Vec::new(),
            scratch,
        })
    }

    /// How often to measure where `rounds` are wanted.
    pub(crate) fn rounds(&self, rounds: usize) -> usize {
        rounds.div_ceil(self.haste)
    }

    /// The server of the large and the small files. It serves them from memory, which dropped caches leave alone.
    pub(crate) fn server(&mut self) -> Result<&OriginServer> {
        if self.server.is_none() {
            let data = self.scratch.fresh("origin")?;
            mount(
                "millpond-figures",
                &data,
                "tmpfs",
                MountFlags::empty(),
                c"mode=0700",
            )
            .with_context(|| format!("failed to mount a file system in memory at {}", data.display()))?;
            let sets = [self.large.objects(), self.small.objects()];
            self.server = Some(OriginServer::start(&self.origin, &sets, Some(&data))?);
        }
        self.server.as_ref().context("the server was just started")
    }

    /// Sets what that server counts to zero.
    pub(crate) fn reset_counters(&mut self) -> Result<()> {
        self.server()?;
        let server = self.server.as_ref().context("the server was just started")?;
        server.reset(&self.runtime)
    }

    /// The bytes of objects that it sent since then.
    pub(crate) fn bytes_sent(&mut self) -> Result<u64> {
        self.server()?;
        let server = self.server.as_ref().context("the server was just started")?;
        Ok(server.counters(&self.runtime)?.bytes_sent)
    }

    /// A server of files that are only listed, for one figure.
    pub(crate) fn server_of(&self, set: &Set) -> Result<OriginServer> {
        OriginServer::start(&self.origin, &[set.objects()], None)
    }

    /// A mount command with the cache in `cache`.
    pub(crate) fn command(
        &self,
        source: &str,
        server: &OriginServer,
        cache: &Path,
        view: View,
    ) -> Result<MeasuredCommand> {
        let directory = self.scratch.try_directory(MOUNT_POINT)?;
        let from = (source, server.endpoint());
        Ok(MeasuredCommand::new(
            self.millpond.clone(),
            from,
            &directory,
            cache,
            view,
        ))
    }

    /// The same of a source of [`server`](Self::server).
    pub(crate) fn data_command(&mut self, source: &str, cache: &Path, view: View) -> Result<MeasuredCommand> {
        self.server()?;
        let server = self.server.as_ref().context("the server was just started")?;
        self.command(source, server, cache, view)
    }

    /// Unmounts, and remembers what memory the mount took.
    pub(crate) fn unmount(&mut self, mount: MeasuredMount) -> Result<()> {
        self.peaks.push(mount.unmount()?);
        Ok(())
    }

    /// Native copies of the large and the small files: plain files on the file system of the caches.
    pub(crate) fn native(&mut self) -> Result<Native> {
        let root = self.scratch.join("native");
        let native = Native {
            large: root.join("large"),
            small: root.join("small"),
        };
        if !self.copied {
            self.scratch.fresh("native")?;
            self.large.write(&native.large)?;
            self.small.write(&native.small)?;
            self.copied = true;
        }
        Ok(native)
    }

    /// The source of [`kept`](Self::kept): the large and the small files.
    pub(crate) fn whole_source() -> String {
        format!("s3://{BUCKET}/data")
    }

    /// The command for a mount of everything, whose cache holds all of it.
    pub(crate) fn kept_command(&mut self, view: View) -> Result<MeasuredCommand> {
        let source = Self::whole_source();
        let cache = self.scratch.join("kept");
        let command = self.data_command(&source, &cache, view)?;
        if !self.warm {
            self.scratch.fresh("kept")?;
            let mount = command.clone().during("warming up everything").mount()?;
            mount.warm_up()?;
            self.unmount(mount)?;
            self.warm = true;
        }
        Ok(command)
    }

    /// A mount of everything whose cache holds all of it, with the page cache of one set, here and native, as it is after
    /// reading from the disk. Every byte of both is compared, once a run for each view and set.
    pub(crate) fn kept(&mut self, view: View, which: Which, during: &str) -> Result<Kept> {
        let native = self.native()?;
        let mount = self.kept_command(view)?.during(during).mount()?;
        mount.wait_for_refresh()?;
        let (set, name) = match which {
            Which::Large => (&self.large, "large"),
            Which::Small => (&self.small, "small"),
        };
        let native = match which {
            Which::Large => native.large,
            Which::Small => native.small,
        };
        let ours = mount.path().join(name);
        // What was just written may lie in the page cache in smaller pieces than what was read.
        drop_caches(Caches::All)?;
        let known = self.checked.contains(&(view, which));
        for root in [&native, &ours] {
            if known {
                reading::read_files(root, set.files(), WARMING_THREADS)?;
            } else {
                set.check(root)?;
            }
        }
        if !known {
            self.checked.push((view, which));
        }
        let fetched = mount.stats()?;
        let requests = fetched
            .pointer("/origin/bytes")
            .and_then(serde_json::Value::as_u64);
        ensure!(
            requests == Some(0),
            "a mount whose cache holds everything fetched from the origin: {fetched}"
        );
        Ok(Kept { mount, native, ours })
    }
}

/// Where the files of both sets lie.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    pub(crate) large: PathBuf,
    pub(crate) small: PathBuf,
}

/// One of the sets of a [`Kept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Large,
    Small,
}

/// See [`Lab::kept`].
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) mount: MeasuredMount,
    /// The set's files on the disk.
    pub(crate) native: PathBuf,
    /// The same through the mount.
    pub(crate) ours: PathBuf,
}
