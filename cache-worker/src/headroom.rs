//! Keeps a part of a tier's disk free, whatever the tier's capacity: on a node with a full disk the kubelet evicts pods,
//! training ones too, which frees nothing if the cache fills the disk.
//!
//! The disk is checked every two seconds; between two checks the pool reserves no more than was spare at the last one, so
//! that the cache itself never exceeds the limit. Other programs may: then Datasets with an eviction policy evict, each in
//! proportion to its evictable bytes, and the others store nothing new.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, Registry};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::tiers::TierOption;
use crate::service::Datasets;
use millpond_cache::{Medium, PoolCapacity};

/// Default percentage to keep free on a disk of the kubelet or the container runtime. By its defaults the kubelet removes
/// images when less than 15 % are free, and evicts pods at 10 or 15 %.
const SHARED_PERCENT: u64 = 20;

/// Divisor of the percentage for inodes: the kubelet's limit for inodes is half that for bytes.
const INODES_DIVISOR: u64 = 2;

/// Files that the kubelet and the container runtime mount into every container from their own directories.
const OTHERS_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Checks that must agree before a shortage, or its end, is reported.
const CHECKS_BEFORE_REPORT: u32 = 5;

/// Withheld bytes are rounded to this fraction of the capacity, so that reports change seldom.
const REPORT_STEPS: u64 = 100;

/// Free space of a file system.
#[derive(Clone, Copy, Debug)]
struct Disk {
    bytes: u64,
    free_bytes: u64,
    /// Total inodes; 0: the file system creates them as needed.
    inodes: u64,
    free_inodes: u64,
}

impl Disk {
    fn read(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            inodes: found.f_files,
            free_inodes: found.f_favail,
        })
    }

    /// Returns how many bytes may be written if `percent` are to stay free; negative: how many should be evicted. If inodes
    /// are scarcer than bytes, the bytes that files of the mean size have with the spare inodes.
    fn spare_bytes(&self, percent: u64) -> i64 {
        let beyond = |free: u64, total: u64, percent: u64| {
            i128::from(free) - i128::from(total) * i128::from(percent) / 100
        };
        let mut spare = beyond(self.free_bytes, self.bytes, percent);
        let (used, used_inodes) = (
            self.bytes.saturating_sub(self.free_bytes),
            self.inodes.saturating_sub(self.free_inodes),
        );
        if let Some(each) = used.checked_div(used_inodes) {
            let inodes = beyond(self.free_inodes, self.inodes, percent / INODES_DIVISOR);
            spare = spare.min(inodes * i128::from(each.max(1)));
        }
        i64::try_from(spare).unwrap_or(if spare < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Registers the metric of withheld bytes.
pub(super) fn gauge(registry: &Registry) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(
        "millpond_worker_withheld_bytes",
        "Bytes of the disk tier's capacity that are withheld because free disk space is below minFreePercent.",
    )?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// Debounce of shortage reports: a shortage is reported after several checks agree. A worker that has just started has not
/// scanned its files yet, and other programs' files may be temporary.
#[derive(Debug, Default)]
struct ShortageDebounce {
    reported: u64,
    /// Consecutive checks that disagreed with the reported state.
    others: u32,
}

impl ShortageDebounce {
    /// Records a check; returns whether the reported state changed, not only its number.
    fn record(&mut self, withheld: u64) -> bool {
        let is_other = (withheld > 0) != (self.reported > 0);
        self.others = if is_other { self.others + 1 } else { 0 };
        let is_news = self.others >= CHECKS_BEFORE_REPORT;
        if is_news || !is_other {
            self.reported = withheld;
            self.others = 0;
        }
        is_news
    }
}

/// Headroom of the tier on a disk.
pub(super) struct Headroom {
    path: PathBuf,
    percent: u64,
    pool: Arc<PoolCapacity>,
    datasets: Arc<Datasets>,
    withheld: IntGauge,
}

impl Headroom {
    /// Creates the headroom of a tier; `None`: not a disk, or nothing has to stay free. `percent`: the option, if given.
    pub(super) fn of(
        tier: &TierOption,
        percent: Option<u8>,
        pool: Arc<PoolCapacity>,
        datasets: Arc<Datasets>,
        withheld: IntGauge,
    ) -> io::Result<Option<Self>> {
        let percent = match (tier.medium, percent) {
            (Medium::Memory, _) => 0,
            (Medium::Disk, Some(percent)) => u64::from(percent),
            (Medium::Disk, None) if is_others_disk(&tier.path)? => SHARED_PERCENT,
            (Medium::Disk, None) => 0,
        };
        Ok((percent > 0).then(|| Self {
            path: tier.path.clone(),
            percent,
            pool,
            datasets,
            withheld,
        }))
    }

    /// Checks the disk until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        info!(percent = self.percent, path = %self.path.display(), "keeping a part of the disk free");
        let mut interval = tokio::time::interval(CHECK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut debounce = ShortageDebounce::default();
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            if stop.run_until_cancelled(self.check_disk()).await.is_none() {
                break;
            }
            let is_news = debounce.record(withheld_bytes(&self.pool));
            self.withheld
                .set(i64::try_from(debounce.reported).unwrap_or(i64::MAX));
            let (path, percent, withheld_bytes) = (self.path.display(), self.percent, debounce.reported);
            match (is_news, withheld_bytes) {
                (false, _) => {}
                (true, 0) => {
                    info!(%path, percent, "free disk space recovered; the complete capacity is usable")
                }
                (true, _) => {
                    warn!(%path, percent, withheld_bytes, "free disk space below minFreePercent; withholding a part of the capacity")
                }
            }
        }
    }

    async fn check_disk(&self) {
        self.pool.scanned().await;
        let path = self.path.clone();
        let check = tokio::task::spawn_blocking(move || Disk::read(&path)).await;
        let spare = match check.map_err(io::Error::other).flatten() {
            Ok(disk) => disk.spare_bytes(self.percent),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "failed to read the free disk space; retried by the next check");
                return;
            }
        };
        let excess = self.pool.limit_to_spare(spare);
        if excess > 0 {
            self.evict_for_headroom(excess).await;
        }
    }

    /// Evicts `bytes` from all Datasets together.
    async fn evict_for_headroom(&self, bytes: u64) {
        let evictable: Vec<_> = self
            .datasets
            .all()
            .into_iter()
            .map(|(_, served)| (served.dataset.evictable_bytes(), served.dataset))
            .filter(|(evictable, _)| *evictable > 0)
            .collect();
        let all: u128 = evictable
            .iter()
            .map(|(evictable, _)| u128::from(*evictable))
            .sum();
        for (evictable, dataset) in evictable {
            let part = u128::from(bytes) * u128::from(evictable) / all.max(1);
            let part = u64::try_from(part).unwrap_or(u64::MAX).min(evictable);
            if part > 0 {
                dataset.evict_bytes(part).await;
            }
        }
    }
}

/// Returns the withheld bytes of a pool's capacity, rounded up to a hundredth of it.
fn withheld_bytes(pool: &PoolCapacity) -> u64 {
    let step = (pool.capacity_bytes() / REPORT_STEPS).max(1);
    pool.withheld_bytes()
        .div_ceil(step)
        .saturating_mul(step)
        .min(pool.capacity_bytes())
}

/// Returns whether the kubelet or the container runtime have their files on the same file system.
fn is_others_disk(path: &Path) -> io::Result<bool> {
    let disk = std::fs::metadata(path)?.dev();
    Ok(OTHERS_FILES
        .iter()
        .filter_map(|file| std::fs::metadata(file).ok())
        .any(|file| file.dev() == disk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn disk(free_bytes: u64, free_inodes: u64) -> Disk {
        Disk {
            bytes: 1_000 * GIB,
            free_bytes,
            inodes: 1_000_000,
            free_inodes,
        }
    }

    fn gib(bytes: i64) -> i64 {
        bytes >> 30
    }

    #[test]
    fn reserved_free_space_is_not_spare() {
        assert_eq!(gib(disk(300 * GIB, 900_000).spare_bytes(20)), 100);
        assert_eq!(gib(disk(150 * GIB, 900_000).spare_bytes(20)), -50);
        assert_eq!(gib(disk(150 * GIB, 900_000).spare_bytes(0)), 150);
    }

    #[test]
    fn inodes_count_where_they_are_scarcer() {
        // 500 GiB in 800,000 files; 100,000 of 1,000,000 inodes must stay free.
        let scarce = disk(500 * GIB, 200_000);
        assert_eq!(gib(scarce.spare_bytes(20)), 62);
        assert!(disk(500 * GIB, 50_000).spare_bytes(20) < 0);
        let made_as_needed = Disk {
            inodes: 0,
            free_inodes: 0,
            ..scarce
        };
        assert_eq!(gib(made_as_needed.spare_bytes(20)), 300);
    }

    #[test]
    fn a_shortage_is_reported_when_it_lasts() {
        let mut debounce = ShortageDebounce::default();
        for _ in 0..3 {
            // A start.
            for _ in 1..CHECKS_BEFORE_REPORT {
                assert!(!debounce.record(7));
            }
            assert!(!debounce.record(0));
        }
        let news: Vec<_> = [7, 7, 7, 7, 8, 9, 0, 9, 0, 0, 0, 0, 0]
            .map(|withheld| (debounce.record(withheld), debounce.reported))
            .into();
        let steps: Vec<_> = news.iter().filter(|(is_news, _)| *is_news).collect();
        assert_eq!(steps, [&(true, 8), &(true, 0)]);
        assert_eq!(news[5..8], [(false, 9); 3], "the number follows immediately");
    }

    #[test]
    fn withheld_bytes_are_reported_in_hundredths() {
        let pool = PoolCapacity::new(1_000 * GIB);
        assert_eq!(withheld_bytes(&pool), 0);
        pool.limit_to_spare(i64::try_from(995 * GIB).unwrap());
        assert_eq!(withheld_bytes(&pool), 10 * GIB);
        pool.limit_to_spare(-1);
        assert_eq!(withheld_bytes(&pool), 1_000 * GIB);
    }
}
