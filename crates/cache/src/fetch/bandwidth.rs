//! A limit on the bytes per second of a load.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The unit of the limiter: its 32-bit cells then reach 4 TiB/s.
const CELL_BYTES: u64 = 1024;

/// The burst that is allowed after an idle time.
const BURST: Duration = Duration::from_millis(250);

/// A shared limit of bytes per second.
#[derive(Debug)]
pub struct Bandwidth {
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
    burst: NonZeroU32,
}

impl Bandwidth {
    /// Returns a limit of `bytes_per_second`, at least 1 KiB/s.
    pub fn new(bytes_per_second: u64) -> Self {
        let rate = cells(bytes_per_second);
        let burst = cells(bytes_per_second / u64::from(1000 / BURST.subsec_millis().max(1)).max(1));
        let quota = Quota::per_second(rate).allow_burst(burst);
        Self {
            limiter: RateLimiter::direct(quota),
            burst,
        }
    }

    /// Waits until `bytes` more may be requested.
    ///
    /// # Cancel safety
    /// The bytes waited for so far are spent.
    pub async fn take(&self, bytes: u64) {
        let mut left = bytes.div_ceil(CELL_BYTES);
        while let Some(now) = NonZeroU32::new(self.burst.get().min(u32::try_from(left).unwrap_or(u32::MAX))) {
            // A step never exceeds the burst, the only amount that the limiter refuses.
            let _ = self.limiter.until_n_ready(now).await;
            left -= u64::from(now.get());
        }
    }
}

fn cells(bytes: u64) -> NonZeroU32 {
    let cells = u32::try_from(bytes / CELL_BYTES).unwrap_or(u32::MAX);
    NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_limit_lets_any_amount_through_in_time() {
        for limit in [1 << 30, u64::MAX] {
            let bandwidth = Bandwidth::new(limit);
            for bytes in [0, 1, 1 << 20, 300 << 20] {
                bandwidth.take(bytes).await;
            }
        }
        Bandwidth::new(0).take(1).await;
    }

    #[test]
    fn bytes_are_counted_in_cells_and_never_as_none() {
        assert_eq!(
            (cells(0).get(), cells(10 << 10).get(), cells(u64::MAX).get()),
            (1, 10, u32::MAX)
        );
    }
}
