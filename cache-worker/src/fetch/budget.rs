//! The one byte budget that all buffers on the way of a read come from.
//!
//! Whoever is going to hold bytes in memory takes their number here first and keeps the [`Grant`] as long as
//! the bytes: under pressure readers wait, and the process does not grow. The budget counts bytes of objects;
//! what the client library holds beside them (a read buffer for each connection) is bounded by the number of
//! requests at once.

use std::sync::Arc;

use super::Urgency;
use super::gate::{Gate, Grant};

/// A shared budget of bytes. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    gate: Arc<Gate>,
}

impl Budget {
    /// Makes a budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self {
            gate: Gate::new(bytes),
        }
    }

    /// Waits until `bytes` may be held. More than the whole budget is clamped to it; read-ahead to three
    /// quarters of it.
    ///
    /// Never call it while holding a grant of the same budget.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub async fn acquire(&self, bytes: u64, urgency: Urgency) -> Grant {
        self.gate.acquire(bytes, urgency).await
    }

    /// Takes `bytes` if they are free and nobody waits for them.
    pub fn try_acquire(&self, bytes: u64, urgency: Urgency) -> Option<Grant> {
        self.gate.try_acquire(bytes, urgency)
    }

    /// The whole budget.
    pub fn capacity_bytes(&self) -> u64 {
        self.gate.capacity()
    }

    /// What is granted now.
    pub fn used_bytes(&self) -> u64 {
        self.gate.used()
    }

    /// How many wait for bytes.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }
}
