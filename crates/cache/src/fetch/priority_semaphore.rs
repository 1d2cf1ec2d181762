//! A weighted semaphore that lets whoever is waited for go first, and whose size may change.
//!
//! Both the byte budget and the limit of requests at once are one of these. Waiters of one [`Priority`] are
//! served in the order of their coming, so a large one is not starved by small ones. A waiting reader goes
//! before all read-ahead, and read-ahead alone never fills the gate: a quarter stays free for readers.
//!
//! Invariants:
//! - What is granted never exceeds the capacity, except for the time after [`PrioritySemaphore::resize`] made it smaller.
//! - An amount above what can ever be granted is clamped to that: it waits for an empty gate, not for ever.
//! - A waiter that is dropped, even after it was granted, takes nothing with it and holds nobody up.
//!
//! A holder of a grant must not wait for another one at the same gate: two of them could wait for each other.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Priority;

/// Read-ahead leaves this fraction of the capacity to readers.
const READERS_SHARE: u64 = 4;

/// The gate itself; [`PriorityPermit`]s keep it alive.
#[derive(Debug)]
pub(crate) struct PrioritySemaphore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    capacity: u64,
    used: u64,
    readers: VecDeque<Waiter>,
    read_ahead: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    amount: u64,
    hand: oneshot::Sender<PriorityPermit>,
}

/// A part of a gate's capacity, given back when it is dropped.
#[derive(Debug)]
#[must_use = "a grant is given back as soon as it is dropped"]
pub struct PriorityPermit {
    gate: Arc<PrioritySemaphore>,
    amount: u64,
}

impl PriorityPermit {
    /// How much was granted: less than was asked for where that can never be had.
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes `amount` (or all there is) out of this grant into one of its own.
    pub fn split(&mut self, amount: u64) -> Self {
        let taken = amount.min(self.amount);
        self.amount -= taken;
        Self {
            gate: Arc::clone(&self.gate),
            amount: taken,
        }
    }
}

impl Drop for PriorityPermit {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.gate.release(self.amount);
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
                read_ahead: VecDeque::new(),
            }),
        })
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.state.lock().capacity
    }

    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }

    /// The most that one of this priority can ever be granted.
    pub(crate) fn ceiling(&self, priority: Priority) -> u64 {
        self.state.lock().ceiling(priority)
    }

    /// How many wait, those included that went away and were not noticed yet.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.readers.len() + state.read_ahead.len()
    }

    /// Changes the capacity. What is granted already stays granted.
    pub(crate) fn resize(self: &Arc<Self>, capacity: u64) {
        self.state.lock().capacity = capacity.max(1);
        self.serve();
    }

    /// Takes `amount` if nobody has to be waited for.
    pub(crate) fn try_acquire(self: &Arc<Self>, amount: u64, priority: Priority) -> Option<PriorityPermit> {
        let mut state = self.state.lock();
        let amount = state.take(amount, priority)?;
        Some(PriorityPermit {
            gate: Arc::clone(self),
            amount,
        })
    }

    /// Waits for `amount`.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue, and what was granted in that moment.
    pub(crate) async fn acquire(self: &Arc<Self>, amount: u64, priority: Priority) -> PriorityPermit {
        // Declared before the receiver, so dropped after it: those behind us in the queue move up.
        let _leaving;
        let hand = {
            let mut state = self.state.lock();
            if let Some(amount) = state.take(amount, priority) {
                return PriorityPermit {
                    gate: Arc::clone(self),
                    amount,
                };
            }
            let (hand, granted) = oneshot::channel();
            state.queue(priority).push_back(Waiter { amount, hand });
            granted
        };
        _leaving = WaiterGuard { gate: self };
        hand.await
            .expect("a waiter leaves the queue only with its grant, or after its receiver is gone")
    }

    fn release(self: &Arc<Self>, amount: u64) {
        {
            let mut state = self.state.lock();
            state.used = state.used.saturating_sub(amount);
        }
        self.serve();
    }

    /// Grants to everybody whose turn it is. Grants leave the lock before they are handed over: one that
    /// nobody takes any more is dropped, which takes the lock again.
    fn serve(self: &Arc<Self>) {
        loop {
            let (hand, amount) = {
                let mut state = self.state.lock();
                match state.next() {
                    Some(next) => next,
                    None => return,
                }
            };
            drop(hand.send(PriorityPermit {
                gate: Arc::clone(self),
                amount,
            }));
        }
    }
}

impl State {
    const fn queue(&mut self, priority: Priority) -> &mut VecDeque<Waiter> {
        match priority {
            Priority::Reader => &mut self.readers,
            Priority::Background => &mut self.read_ahead,
        }
    }

    /// The most that one priority may bring the use to.
    const fn ceiling(&self, priority: Priority) -> u64 {
        match priority {
            Priority::Reader => self.capacity,
            Priority::Background => self.capacity - self.capacity / READERS_SHARE,
        }
    }

    /// What `amount` comes to, if there is room for it now.
    fn fits(&self, amount: u64, priority: Priority) -> Option<u64> {
        let ceiling = self.ceiling(priority);
        let clamped = amount.min(ceiling);
        (self.used.saturating_add(clamped) <= ceiling).then_some(clamped)
    }

    /// Takes `amount` for somebody who is not in a queue.
    fn take(&mut self, amount: u64, priority: Priority) -> Option<u64> {
        let someone_before =
            !self.readers.is_empty() || (priority == Priority::Background && !self.read_ahead.is_empty());
        if someone_before {
            return None;
        }
        let taken = self.fits(amount, priority)?;
        self.used += taken;
        Some(taken)
    }

    /// Takes for the first in the queues who is still there, if there is room.
    fn next(&mut self) -> Option<(oneshot::Sender<PriorityPermit>, u64)> {
        for priority in [Priority::Reader, Priority::Background] {
            while self
                .queue(priority)
                .front()
                .is_some_and(|waiter| waiter.hand.is_closed())
            {
                self.queue(priority).pop_front();
            }
            let Some(amount) = self.queue(priority).front().map(|waiter| waiter.amount) else {
                continue;
            };
            let taken = self.fits(amount, priority)?;
            let waiter = self.queue(priority).pop_front()?;
            self.used += taken;
            return Some((waiter.hand, taken));
        }
        None
    }
}

/// Lets the queue move up when a waiter goes.
struct WaiterGuard<'a> {
    gate: &'a Arc<PrioritySemaphore>,
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.gate.serve();
    }
}

#[cfg(test)]
mod tests;
