//! Keeps a part of a tier's disk free, however large the tier's capacity: of a node whose disk is short the kubelet evicts
//! pods, those that train too, and where the cache fills the disk that helps nobody.
//!
//! Looked at every two seconds; between two looks the pool gives out no more than was spare at the last one, so that the
//! cache itself never goes beyond. What others write meanwhile may: then Datasets that evict make room for it, each in
//! proportion to what it could evict, and the others take in nothing new.

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

/// Of a disk that is the kubelet's or the container runtime's, too. The kubelet removes images when less than 15 % are free, and
/// evicts pods at 10 or 15 %, by its defaults.
const SHARED_PERCENT: u64 = 20;

/// Of the inodes, in parts of what must be free of the bytes: the kubelet evicts pods at half as much.
const INODES_DIVISOR: u64 = 2;

/// What the kubelet and the container runtime put into every container from directories of their own.
const OTHERS_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Looks that have to agree before it is said that the disk is short, or no more.
const CHECKS_BEFORE_REPORT: u32 = 5;

/// What is told is told in parts of the capacity, so that it changes seldom.
const REPORT_STEPS: u64 = 100;

/// What a file system has.
#[derive(Clone, Copy, Debug)]
struct Disk {
    bytes: u64,
    free_bytes: u64,
    /// 0: it makes them as they are needed.
    inodes: u64,
    free_inodes: u64,
}

impl Disk {
    fn look(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            inodes: found.f_files,
            free_inodes: found.f_favail,
        })
    }

    /// How many bytes more may be taken if so many percent are to stay free; negative: how many should go. Where inodes are
    /// scarcer than bytes, what the files of this disk hold with so many inodes.
    fn spare_bytes(&self, percent: u64) -> i64 {
        let beyond = |free: u64, whole: u64, percent: u64| {
            i128::from(free) - i128::from(whole) * i128::from(percent) / 100
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

/// The metric of what cannot be used.
pub(super) fn gauge(registry: &Registry) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(
        "millpond_worker_withheld_bytes",
        "What of the disk tier's capacity is not used, since a part of the disk has to stay free",
    )?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// What is said of what cannot be used: whether there is anything, only after several looks agree. A worker that has just started
/// does not know yet what the disk holds for it, and what others write comes and goes.
#[derive(Debug, Default)]
struct ShortageDebounce {
    told: u64,
    /// Looks in a row that found the opposite.
    others: u32,
}

impl ShortageDebounce {
    /// Takes note of a look. Says whether it changes more than a number.
    fn saw(&mut self, withheld: u64) -> bool {
        let is_other = (withheld > 0) != (self.told > 0);
        self.others = if is_other { self.others + 1 } else { 0 };
        let is_news = self.others >= CHECKS_BEFORE_REPORT;
        if is_news || !is_other {
            self.told = withheld;
            self.others = 0;
        }
        is_news
    }
}

/// The room of the tier on a disk.
pub(super) struct Headroom {
    path: PathBuf,
    percent: u64,
    pool: Arc<PoolCapacity>,
    datasets: Arc<Datasets>,
    withheld: IntGauge,
}

impl Headroom {
    /// Of a tier; `None`: it is no disk, or nothing has to stay free. `percent`: as it was asked for.
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

    /// Looks at the disk until it is told to stop.
    pub(super) async fn keep(self, stop: CancellationToken) {
        info!(percent = self.percent, path = %self.path.display(), "this part of the disk stays free");
        let mut interval = tokio::time::interval(CHECK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut telling = ShortageDebounce::default();
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            if stop.run_until_cancelled(self.look()).await.is_none() {
                break;
            }
            let is_news = telling.saw(withheld_bytes(&self.pool));
            self.withheld.set(i64::try_from(telling.told).unwrap_or(i64::MAX));
            let (path, percent, withheld_bytes) = (self.path.display(), self.percent, telling.told);
            match (is_news, withheld_bytes) {
                (false, _) => {}
                (true, 0) => info!(%path, percent, "the whole capacity can be used"),
                (true, _) => {
                    warn!(%path, percent, withheld_bytes, "the disk is short: a part of the capacity is not used")
                }
            }
        }
    }

    async fn look(&self) {
        self.pool.scanned().await;
        let path = self.path.clone();
        let looking = tokio::task::spawn_blocking(move || Disk::look(&path)).await;
        let spare = match looking.map_err(io::Error::other).flatten() {
            Ok(disk) => disk.spare_bytes(self.percent),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "failed to look at the disk");
                return;
            }
        };
        let excess = self.pool.limit_to_spare(spare);
        if excess > 0 {
            self.evict_for_headroom(excess).await;
        }
    }

    /// Evicts so much of all Datasets together.
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

/// What of a pool's capacity cannot be used, to the hundredth part, rounded up.
fn withheld_bytes(pool: &PoolCapacity) -> u64 {
    let step = (pool.capacity_bytes() / REPORT_STEPS).max(1);
    pool.withheld_bytes()
        .div_ceil(step)
        .saturating_mul(step)
        .min(pool.capacity_bytes())
}

/// Whether the kubelet or the container runtime keep their things on the same file system.
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
    fn what_is_to_stay_free_is_not_spare() {
        assert_eq!(gib(disk(300 * GIB, 900_000).spare_bytes(20)), 100);
        assert_eq!(gib(disk(150 * GIB, 900_000).spare_bytes(20)), -50);
        assert_eq!(gib(disk(150 * GIB, 900_000).spare_bytes(0)), 150);
    }

    #[test]
    fn inodes_count_where_they_are_scarcer() {
        // 500 GiB in 800,000 files; 100,000 of 1,000,000 inodes are to stay free.
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
    fn it_is_told_when_it_lasts() {
        let mut telling = ShortageDebounce::default();
        for _ in 0..3 {
            // A start.
            for _ in 1..CHECKS_BEFORE_REPORT {
                assert!(!telling.saw(7));
            }
            assert!(!telling.saw(0));
        }
        let news: Vec<_> = [7, 7, 7, 7, 8, 9, 0, 9, 0, 0, 0, 0, 0]
            .map(|withheld| (telling.saw(withheld), telling.told))
            .into();
        let steps: Vec<_> = news.iter().filter(|(is_news, _)| *is_news).collect();
        assert_eq!(steps, [&(true, 8), &(true, 0)]);
        assert_eq!(news[5..8], [(false, 9); 3], "the number follows at once");
    }

    #[test]
    fn what_is_withheld_is_told_in_hundredths() {
        let pool = PoolCapacity::new(1_000 * GIB);
        assert_eq!(withheld_bytes(&pool), 0);
        pool.limit_to_spare(i64::try_from(995 * GIB).unwrap());
        assert_eq!(withheld_bytes(&pool), 10 * GIB);
        pool.limit_to_spare(-1);
        assert_eq!(withheld_bytes(&pool), 1_000 * GIB);
    }
}
