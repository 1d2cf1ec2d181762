//! Writing of small objects, many at a time.
//!
//! A hop to a blocking thread and back costs as much as a tenth of writing a small file. So writes that are asked for at
//! the same time share a few threads: one drains the queue until it is empty.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use super::{NotStored, Reservation};

/// Threads that write at once: enough to keep an NVMe device and the journal of its file system busy.
const THREADS: usize = 4;

/// Writes that are queued or under way. Their content is the callers', who have it in memory anyway.
const QUEUE: usize = 256;

struct Job {
    room: Reservation,
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
    places: Semaphore,
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
            places: Semaphore::new(QUEUE),
        }
    }
}

impl Writers {
    /// Writes an object.
    pub(super) async fn put(
        self: &Arc<Self>,
        room: Reservation,
        content: Vec<Bytes>,
        tasks: &TaskTracker,
    ) -> Result<(), NotStored> {
        let Ok(_place) = self.places.acquire().await else {
            return Err(NotStored::Failed);
        };
        let (done, result) = oneshot::channel();
        let is_thread_wanted = {
            let mut queue = self.queue.lock();
            queue.jobs.push_back(Job { room, content, done });
            let is_wanted = queue.threads < THREADS;
            queue.threads += usize::from(is_wanted);
            is_wanted
        };
        if is_thread_wanted {
            let this = Arc::clone(self);
            // Nobody waits for the thread: each job has its own answer.
            drop(tasks.spawn_blocking(move || this.drain()));
        }
        // A sender that is gone means that the runtime is going down.
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
            let Job { room, content, done } = job;
            // Whoever asked may be gone; the object is kept all the same.
            done.send(room.fill(&content)).ok();
        }
    }
}
