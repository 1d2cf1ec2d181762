//! Servers that are killed, and mounts that outlive them.
//!
//! The server is the example `fuse-server`; the test is its supervisor, and runs the keeper.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::helper;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::super::testing::{FakeWorker, ServerOptions, TestFile, complete, write_catalog};
use super::super::{FuseOptions, FuseServer, Layout, Unmount};
use super::{GUARD, can_mount, metrics, wait_until};
use crate::keeper::{KeeperClient, KeeperServer};

const KILLS: u32 = 30;

/// A supervisor with its server.
struct Supervised {
    options: ServerOptions,
    keeper: Option<KeeperServer>,
    server: Option<Child>,
    directory: TempDir,
}

impl Supervised {
    fn new(files: &[TestFile], limit: Duration, change: impl FnOnce(&mut ServerOptions)) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["catalog", "mnt", "objects"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        write_catalog(&directory.path().join("catalog"), 1, files);
        let mut options = ServerOptions {
            directory: directory.path().to_owned(),
            delay_ms: 2,
            passthrough: true,
            idle: 0,
            stopping: None,
            newest: 1,
        };
        change(&mut options);
        let keeper = Some(KeeperServer::start(limit).unwrap());
        let mut supervised = Self {
            options,
            keeper,
            server: None,
            directory,
        };
        supervised.start();
        Some(supervised)
    }

    fn keeper(&self) -> &KeeperServer {
        self.keeper.as_ref().unwrap()
    }

    fn start(&mut self) {
        let child = helper("fuse-server")
            .arg(serde_json::to_string(&self.options).unwrap())
            .stdin(Stdio::from(self.keeper().socket().unwrap()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(child);
        wait_until("the server", || {
            let exit = self.server.as_mut().unwrap().try_wait().unwrap();
            assert!(exit.is_none(), "the server ended: {exit:?}");
            self.keeper.as_ref().unwrap().status().borrow().ready
        });
    }

    fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        wait_until("the keeper to notice", || !self.keeper().status().borrow().ready);
    }

    fn live(&self) -> std::path::PathBuf {
        self.directory.path().join("mnt/live")
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Requests that still wait in the mount fail from here on.
        let mountpoint = self.directory.path().canonicalize().unwrap().join("mnt");
        if let Ok(connection) = crate::mount::fuse_connection(&mountpoint) {
            let _ = crate::mount::abort_fuse_connection(connection);
        }
        let _ = super::super::mounting::unmount(&mountpoint, true);
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        self.keeper.take();
    }
}

const FILE_BYTES: u64 = 300_000;

fn files() -> Vec<TestFile> {
    (0..40)
        .map(|index| TestFile::new(format!("d{}/f{index}", index % 3), FILE_BYTES))
        .collect()
}

fn read_and_check(live: &Path, file: &TestFile, random: &mut SmallRng) {
    let open =
        File::open(live.join(&file.path)).unwrap_or_else(|error| panic!("open {}: {error}", file.path));
    check_piece(&open, file, random);
    if random.random_bool(0.3) {
        let mut whole = Vec::new();
        (&open)
            .read_to_end(&mut whole)
            .unwrap_or_else(|error| panic!("read {}: {error}", file.path));
        assert!(whole == file.whole(), "{}", file.path);
    }
}

fn check_piece(open: &File, file: &TestFile, random: &mut SmallRng) {
    let start = random.random_range(0..file.size);
    let end = (start + random.random_range(1..70_000)).min(file.size);
    let mut piece = vec![0; usize::try_from(end - start).unwrap()];
    open.read_exact_at(&mut piece, start)
        .unwrap_or_else(|error| panic!("piece of {}: {error}", file.path));
    assert!(piece == file.content(start..end), "{} at {start}", file.path);
}

#[test]
fn a_successor_shows_a_catalog_that_the_kernel_was_never_told_of() {
    let before = [TestFile::new("d/changed", 100_000), TestFile::new("d/gone", 10)];
    let after = [TestFile::new("d/changed", 90_000).version("\"two\"")];
    let Some(mut supervised) = Supervised::new(&before, Duration::from_secs(120), |_| {}) else {
        return;
    };
    let changed = supervised.live().join("d/changed");
    let removed = supervised.live().join("d/gone");
    // The kernel has cached these names and sizes from here on.
    assert_eq!(std::fs::metadata(&changed).unwrap().len(), 100_000);
    assert!(removed.exists());
    supervised.kill();
    write_catalog(&supervised.directory.path().join("catalog"), 2, &after);
    supervised.options.newest = 2;
    supervised.start();
    wait_until("the new generation", || !removed.exists());
    assert_eq!(std::fs::metadata(&changed).unwrap().len(), 90_000);
    assert!(std::fs::read(&changed).unwrap() == after[0].whole());
}

/// Kills the server again and again under readers of complete and incomplete files.
fn kill_under_load(passthrough: bool, idle: usize) {
    let files = files();
    let Some(mut supervised) = Supervised::new(&files, Duration::from_secs(120), |options| {
        options.passthrough = passthrough;
        options.idle = idle;
    }) else {
        return;
    };
    for file in files.iter().step_by(2) {
        complete(supervised.directory.path(), file);
    }
    let live = supervised.live();
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    // Open across all kills: complete and not.
    let held: Vec<_> = files[..6]
        .iter()
        .map(|file| (file, File::open(live.join(&file.path)).unwrap()))
        .collect();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let (live, files, held, stop, done, failed) = (&live, &files, &held, &stop, &done, &failed);
            scope.spawn(move || {
                struct Alarm<'a>(&'a AtomicBool);
                impl Drop for Alarm<'_> {
                    fn drop(&mut self) {
                        if std::thread::panicking() {
                            self.0.store(true, Ordering::Relaxed);
                        }
                    }
                }
                let _alarm = Alarm(failed);
                let mut random = SmallRng::seed_from_u64(seed);
                while !stop.load(Ordering::Relaxed) {
                    if random.random_bool(0.3) {
                        let (file, open) = &held[random.random_range(0..held.len())];
                        check_piece(open, file, &mut random);
                    } else {
                        read_and_check(live, &files[random.random_range(0..files.len())], &mut random);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = SmallRng::seed_from_u64(99);
        for kill in 0..KILLS {
            let goal = done.load(Ordering::Relaxed) + random.random_range(1..60);
            wait_until(&format!("progress after {kill} kills"), || {
                failed.load(Ordering::Relaxed) || done.load(Ordering::Relaxed) >= goal
            });
            if failed.load(Ordering::Relaxed) {
                break;
            }
            supervised.kill();
            supervised.start();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!failed.load(Ordering::Relaxed));
    let mut random = SmallRng::seed_from_u64(7);
    for (file, open) in &held {
        check_piece(open, file, &mut random);
    }
}

#[test]
fn thirty_kills_under_readers_show_no_error() {
    kill_under_load(true, 0);
}

#[test]
fn thirty_kills_show_no_error_where_backing_ids_are_kept() {
    kill_under_load(true, 8);
}

#[test]
fn thirty_kills_show_no_error_without_passthrough() {
    kill_under_load(false, 0);
}

#[test]
fn a_file_open_by_passthrough_can_be_opened_again_from_the_next_server() {
    let files = files();
    let Some(mut supervised) = Supervised::new(&files, GUARD, |_| {}) else {
        return;
    };
    complete(supervised.directory.path(), &files[0]);
    let path = supervised.live().join(&files[0].path);
    let held = File::open(&path).unwrap();
    supervised.kill();
    let mut random = SmallRng::seed_from_u64(1);
    check_piece(&held, &files[0], &mut random);
    supervised.start();
    let again = File::open(&path).unwrap();
    check_piece(&again, &files[0], &mut random);
    drop((held, again));
    // The object can be leased once the new server has handled both releases.
    let object = super::super::testing::object_path(supervised.directory.path(), files[0].id());
    let object = File::open(object).unwrap();
    wait_until("the lease", || super::io::lease(&object, libc::F_WRLCK).is_ok());
    super::io::lease(&object, libc::F_UNLCK).unwrap();
}

#[test]
fn a_read_that_meets_a_stopping_worker_waits_for_the_next_server() {
    let files = files();
    let Some(mut supervised) = Supervised::new(&files, GUARD, |options| {
        options.stopping = Some((files[1].path.clone(), files[1].size));
    }) else {
        return;
    };
    let open = File::open(supervised.live().join(&files[1].path)).unwrap();
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut piece = vec![0; 1000];
            let result = open.read_exact_at(&mut piece, 5);
            answered.store(true, Ordering::Relaxed);
            result.map(|()| piece)
        });
        // The server answers others meanwhile, but not this one.
        for file in &files[2..6] {
            assert!(std::fs::read(supervised.live().join(&file.path)).unwrap() == file.whole());
        }
        assert!(!answered.load(Ordering::Relaxed));
        supervised.options.stopping = None;
        supervised.kill();
        supervised.start();
        assert!(reading.join().unwrap().unwrap() == files[1].content(5..1005));
    });
}

#[test]
fn a_mount_without_a_server_is_given_up_after_the_limit() {
    let files = files();
    let Some(mut supervised) = Supervised::new(&files, Duration::from_millis(300), |_| {}) else {
        return;
    };
    complete(supervised.directory.path(), &files[0]);
    let native = File::open(supervised.live().join(&files[0].path)).unwrap();
    let through_server = File::open(supervised.live().join(&files[1].path)).unwrap();
    supervised.kill();
    // It waits for a server, and fails after the timeout.
    let error = through_server.read_exact_at(&mut [0; 10], 0).unwrap_err();
    assert!(
        matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::ENOTCONN)),
        "{error}"
    );
    wait_until("the keeper to report it", || {
        supervised.keeper().status().borrow().aborted == 1
    });
    assert!(File::open(supervised.live().join(&files[2].path)).is_err());
    check_piece(&native, &files[0], &mut SmallRng::seed_from_u64(1));
}

#[test]
fn a_server_that_leaves_is_followed_without_an_error() {
    let files = files();
    let Some(supervised) = Supervised::new(&files, GUARD, |_| {}) else {
        return;
    };
    // The keeper has no mount of another name.
    let client = KeeperClient::new(supervised.keeper().socket().unwrap());
    assert!(client.take_over("other").unwrap().is_none());
    client.stopping().unwrap();
    assert!(supervised.keeper().status().borrow().stopping);
    assert_eq!(supervised.keeper().status().borrow().mounts, ["test"]);
    drop(client);
    wait_until("the keeper to notice", || {
        !supervised.keeper().status().borrow().stopping
    });
}

#[test]
fn a_clean_unmount_is_told_to_the_keeper() {
    if !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let catalog = directory.path().join("catalog");
    let mountpoint = directory.path().join("mnt");
    std::fs::create_dir(&catalog).unwrap();
    std::fs::create_dir(&mountpoint).unwrap();
    let newest = write_catalog(&catalog, 1, &files());
    let keeper = KeeperServer::start(GUARD).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = FuseServer::mount(FuseOptions {
        mountpoint: mountpoint.clone(),
        name: "test".to_owned(),
        layout: Layout::Directories,
        worker: FakeWorker::new(directory.path(), Some(newest), Duration::ZERO),
        runtime: runtime.handle().clone(),
        passthrough: true,
        idle_backing_ids: 0,
        threads: 1,
        metrics: metrics(),
        kernel_views: None,
        keeper: Some(Arc::new(KeeperClient::new(keeper.socket().unwrap()))),
    })
    .unwrap();
    assert_eq!(keeper.status().borrow().mounts, ["test"]);
    assert!(mountpoint.join("live").exists());
    server.unmount(Unmount::IfIdle).unwrap();
    runtime.block_on(server.wait());
    assert!(keeper.status().borrow().mounts.is_empty());
    assert!(!mountpoint.join("live").exists());
}
