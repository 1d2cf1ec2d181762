//! Writes of small objects, many at a time.
//!
//! A hop to a blocking thread and back costs as much as a tenth of writing a small file. So concurrent writes share a few
//! threads, each of which drains the queue until it is empty.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use super::{NotStored, Reservation};

/// Threads that write concurrently: enough to keep an NVMe device and the journal of its file system busy.
const MAX_THREADS: usize = 4;

/// Writes that are queued or in progress. Their content belongs to the callers, which have it in memory anyway.
const QUEUE_CAPACITY: usize = 256;

struct Job {
    reservation: Reservation,
    content: Vec<Bytes>,
    done: oneshot::Sender<Result<(), NotStored>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
}

/// The writers of a store.
pub(super) struct Writers {
    queue: Mutex<Queue>,
    slots: Semaphore,
}

impl std::fmt::Debug for Writers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writers").finish_non_exhaustive()
    }
}

impl Default for Writers {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            slots: Semaphore::new(QUEUE_CAPACITY),
        }
    }
}

impl Writers {
    /// Writes an object.
    pub(super) async fn put(
        self: &Arc<Self>,
        reservation: Reservation,
        content: Vec<Bytes>,
        tasks: &TaskTracker,
    ) -> Result<(), NotStored> {
        let Ok(_slot) = self.slots.acquire().await else {
            return Err(NotStored::Failed);
        };
        let (done, result) = oneshot::channel();
        let is_thread_wanted = {
            let mut queue = self.queue.lock();
            queue.jobs.push_back(Job {
                reservation,
                content,
                done,
            });
            let is_wanted = queue.threads < MAX_THREADS;
            queue.threads += usize::from(is_wanted);
            is_wanted
        };
        if is_thread_wanted {
            let this = Arc::clone(self);
            // No caller waits for the thread: each job has its own result.
            drop(tasks.spawn_blocking(move || this.drain()));
        }
        // A dropped sender means that the runtime is shutting down.
        result.await.unwrap_or(Err(NotStored::Failed))
    }

    fn drain(&self) {
        loop {
            let job = {
                let mut queue = self.queue.lock();
                match queue.jobs.pop_front() {
                    Some(job) => job,
                    None => {
                        queue.threads -= 1;
                        return;
                    }
                }
            };
            let Job {
                reservation,
                content,
                done,
            } = job;
            // The caller may have been dropped; the object is stored all the same.
            done.send(reservation.fill(&content)).ok();
        }
    }
}
