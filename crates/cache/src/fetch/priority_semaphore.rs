//! A weighted semaphore with two priorities and a variable capacity.
//!
//! Both the byte budget and the limit of requests in flight are one. Waiters of one [`Priority`] are served in
//! order of arrival, so small requests do not starve a large one. A waiting reader goes before all background work,
//! and background work alone never fills the semaphore: a quarter stays free for readers.
//!
//! Invariants:
//! - The granted amount never exceeds the capacity, except after [`PrioritySemaphore::resize`] lowered it.
//! - An amount above what can ever be granted is clamped to that: it waits for an empty semaphore, not for ever.
//! - A waiter that is dropped, even after its permit, takes nothing and blocks no other.
//!
//! The holder of a permit must not wait for another one of the same semaphore: two holders could wait for each
//! other.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Priority;

/// Background work leaves this fraction of the capacity to readers.
const READERS_FRACTION: u64 = 4;

/// The semaphore; [`PriorityPermit`]s keep it alive.
#[derive(Debug)]
pub(crate) struct PrioritySemaphore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    capacity: u64,
    used: u64,
    readers: VecDeque<Waiter>,
    background: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    amount: u64,
    sender: oneshot::Sender<PriorityPermit>,
}

/// A part of a semaphore's capacity, released when dropped.
#[derive(Debug)]
#[must_use = "a permit is released as soon as it is dropped"]
pub struct PriorityPermit {
    semaphore: Arc<PrioritySemaphore>,
    amount: u64,
}

impl PriorityPermit {
    /// Returns the amount granted: less than requested where that can never be granted.
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// Splits `amount` (at most all) off into a permit of its own.
    pub fn split(&mut self, amount: u64) -> Self {
        let taken = amount.min(self.amount);
        self.amount -= taken;
        Self {
            semaphore: Arc::clone(&self.semaphore),
            amount: taken,
        }
    }
}

impl Drop for PriorityPermit {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.semaphore.release(self.amount);
        }
    }
}

impl PrioritySemaphore {
    pub(crate) fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                capacity: capacity.max(1),
                used: 0,
                readers: VecDeque::new(),
                background: VecDeque::new(),
            }),
        })
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.state.lock().capacity
    }

    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }

    /// Returns the most that one request of this priority can be granted.
    pub(crate) fn ceiling(&self, priority: Priority) -> u64 {
        self.state.lock().ceiling(priority)
    }

    /// Returns the number of waiters, with those that were dropped and not noticed yet.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.readers.len() + state.background.len()
    }

    /// Changes the capacity. What is granted stays granted.
    pub(crate) fn resize(self: &Arc<Self>, capacity: u64) {
        self.state.lock().capacity = capacity.max(1);
        self.serve();
    }

    /// Takes `amount` if it is free and no earlier waiter has to go first.
    pub(crate) fn try_acquire(self: &Arc<Self>, amount: u64, priority: Priority) -> Option<PriorityPermit> {
        let mut state = self.state.lock();
        let amount = state.take(amount, priority)?;
        Some(PriorityPermit {
            semaphore: Arc::clone(self),
            amount,
        })
    }

    /// Waits for `amount`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue and releases an amount that was granted at that very time.
    pub(crate) async fn acquire(self: &Arc<Self>, amount: u64, priority: Priority) -> PriorityPermit {
        // Declared before the receiver, so dropped after it: the waiters behind it move up.
        let _guard;
        let sender = {
            let mut state = self.state.lock();
            if let Some(amount) = state.take(amount, priority) {
                return PriorityPermit {
                    semaphore: Arc::clone(self),
                    amount,
                };
            }
            let (sender, granted) = oneshot::channel();
            state.queue(priority).push_back(Waiter { amount, sender });
            granted
        };
        _guard = WaiterGuard { semaphore: self };
        sender
            .await
            .expect("a waiter leaves the queue only with its permit, or after its receiver was dropped")
    }

    fn release(self: &Arc<Self>, amount: u64) {
        {
            let mut state = self.state.lock();
            state.used = state.used.saturating_sub(amount);
        }
        self.serve();
    }

    /// Grants to every waiter that is due. Permits leave the lock before they are sent: a permit whose receiver was
    /// dropped is released, which takes the lock again.
    fn serve(self: &Arc<Self>) {
        loop {
            let (sender, amount) = {
                let mut state = self.state.lock();
                match state.next() {
                    Some(next) => next,
                    None => return,
                }
            };
            drop(sender.send(PriorityPermit {
                semaphore: Arc::clone(self),
                amount,
            }));
        }
    }
}

impl State {
    const fn queue(&mut self, priority: Priority) -> &mut VecDeque<Waiter> {
        match priority {
            Priority::Reader => &mut self.readers,
            Priority::Background => &mut self.background,
        }
    }

    /// Returns the most that requests of one priority may raise the use to.
    const fn ceiling(&self, priority: Priority) -> u64 {
        match priority {
            Priority::Reader => self.capacity,
            Priority::Background => self.capacity - self.capacity / READERS_FRACTION,
        }
    }

    /// Returns `amount`, clamped, if it is free now.
    fn fits(&self, amount: u64, priority: Priority) -> Option<u64> {
        let ceiling = self.ceiling(priority);
        let clamped = amount.min(ceiling);
        (self.used.saturating_add(clamped) <= ceiling).then_some(clamped)
    }

    /// Takes `amount` for a request that is not queued.
    fn take(&mut self, amount: u64, priority: Priority) -> Option<u64> {
        let must_queue =
            !self.readers.is_empty() || (priority == Priority::Background && !self.background.is_empty());
        if must_queue {
            return None;
        }
        let taken = self.fits(amount, priority)?;
        self.used += taken;
        Some(taken)
    }

    /// Takes for the first waiter that still exists, if the amount is free.
    fn next(&mut self) -> Option<(oneshot::Sender<PriorityPermit>, u64)> {
        for priority in [Priority::Reader, Priority::Background] {
            while self
                .queue(priority)
                .front()
                .is_some_and(|waiter| waiter.sender.is_closed())
            {
                self.queue(priority).pop_front();
            }
            let Some(amount) = self.queue(priority).front().map(|waiter| waiter.amount) else {
                continue;
            };
            let taken = self.fits(amount, priority)?;
            let waiter = self.queue(priority).pop_front()?;
            self.used += taken;
            return Some((waiter.sender, taken));
        }
        None
    }
}

/// Serves the queue when a waiter is dropped.
struct WaiterGuard<'a> {
    semaphore: &'a Arc<PrioritySemaphore>,
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.semaphore.serve();
    }
}

#[cfg(test)]
mod tests;
