//! The running server, as a test holds it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counters::Counters;
use crate::fault::Faults;
use crate::object::{Body, ETag, Object};
use crate::options::OriginOptions;
use crate::serve::{self, Listening, Port};
use crate::service::Service;

/// A running S3 server; it stops when it is dropped.
///
/// All methods are synchronous and work at once, also from another thread.
#[derive(Debug)]
pub struct Origin {
    service: Arc<Service>,
    address: SocketAddr,
    reachable: watch::Sender<bool>,
    listening: Arc<Listening>,
    stop: CancellationToken,
    /// `None`: it runs in the caller's runtime.
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts a server in the caller's runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    #[expect(
        clippy::unused_async,
        reason = "it needs a runtime, and says so by being async"
    )]
    pub async fn start(options: OriginOptions) -> io::Result<Self> {
        let (origin, serving) = Self::prepare(&options)?;
        // Dropping the origin cancels the task; it has nothing to hand back.
        TaskTracker::new().spawn(serving);
        Ok(origin)
    }

    /// Starts a server in a thread with a runtime of its own, for tests that are not async.
    ///
    /// # Errors
    /// When the address cannot be bound, or no thread started.
    pub fn spawn(options: OriginOptions) -> io::Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime
            .worker_threads(options.threads.max(1))
            .thread_name("origin")
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let (mut origin, serving) = Self::prepare(&options)?;
        drop(entered);
        let thread = std::thread::Builder::new().name("origin".to_owned());
        origin.thread = Some(thread.spawn(move || {
            // On a worker thread: `block_on` would serve the listener from a thread that steals no work.
            let tasks = TaskTracker::new();
            runtime.block_on(async {
                tasks.spawn(serving);
                tasks.close();
                tasks.wait().await;
            });
        })?);
        Ok(origin)
    }

    fn prepare(options: &OriginOptions) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let port = Port::reserve(options.address)?;
        let listener = port.listen()?;
        let service = Arc::new(Service::new(options.credentials.clone()));
        let (reachable, follow) = watch::channel(true);
        let listening = Arc::new(Listening::default());
        let stop = CancellationToken::new();
        let address = port.address();
        let serving = serve::run(
            Arc::clone(&service),
            port,
            listener,
            follow,
            Arc::clone(&listening),
            stop.clone(),
        );
        Ok((
            Self {
                service,
                address,
                reachable,
                listening,
                stop,
                thread: None,
            },
            serving,
        ))
    }

    /// `http://127.0.0.1:PORT`, an endpoint for path-style requests.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a bucket, if it is not there.
    pub fn create_bucket(&self, bucket: &str) {
        self.service.store.create_bucket(bucket);
    }

    /// Puts an object, and makes the bucket if need be. The key may be any bytes.
    pub fn put(&self, bucket: &str, key: impl AsRef<[u8]>, body: impl Into<Body>) -> ETag {
        self.put_at(bucket, key, body, SystemTime::now())
    }

    /// Puts an object with this time of modification (cut to seconds).
    pub fn put_at(
        &self,
        bucket: &str,
        key: impl AsRef<[u8]>,
        body: impl Into<Body>,
        modified: SystemTime,
    ) -> ETag {
        let object = Object::new(body.into(), modified);
        let etag = object.etag;
        self.service
            .store
            .put_all(bucket, [(key.as_ref().to_vec(), object)]);
        etag
    }

    /// Puts an object of [`data`](crate::data) that is made while it is read.
    pub fn put_generated(&self, bucket: &str, key: impl AsRef<[u8]>, seed: u64, len: u64) -> ETag {
        self.put(bucket, key, Body::generated(seed, len))
    }

    /// Puts many objects at once.
    pub fn put_all(&self, bucket: &str, objects: impl IntoIterator<Item = (Vec<u8>, Body)>) {
        let now = SystemTime::now();
        let objects = objects
            .into_iter()
            .map(|(key, body)| (key, Object::new(body, now)));
        self.service.store.put_all(bucket, objects);
    }

    /// Replaces an object; its time is later than before by at least a second, so that the change shows in a listing
    /// even if the content did not change. False if there is no such object.
    pub fn change(&self, bucket: &str, key: impl AsRef<[u8]>, body: impl Into<Body>) -> bool {
        let body = body.into();
        self.service.store.change(bucket, key.as_ref(), |_old| body)
    }

    /// Deletes an object; false if it was not there.
    pub fn delete(&self, bucket: &str, key: impl AsRef<[u8]>) -> bool {
        self.service.store.delete(bucket, key.as_ref()).unwrap_or(false)
    }

    /// The counters since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.service.counters.snapshot()
    }

    /// Sets all counters to zero.
    pub fn reset_counters(&self) {
        self.service.counters.reset();
    }

    /// The rules by which requests go wrong.
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// Delays each answer from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.service.pace.set_latency(latency);
    }

    /// Gives all answers together this bandwidth; `None`: no limit. Answers under way follow from their next piece on
    /// if they began with a limit.
    pub fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        self.service.pace.set_bandwidth(bytes_per_second);
    }

    /// Closes all connections and refuses new ones; returns when that is so. (Not from within the server's runtime
    /// if that has one thread only.)
    pub fn disconnect(&self) {
        self.set_reachable(false);
    }

    /// Undoes [`disconnect`](Self::disconnect); returns when connections are accepted.
    pub fn reconnect(&self) {
        self.set_reachable(true);
    }

    fn set_reachable(&self, reachable: bool) {
        self.reachable.send_replace(reachable);
        self.listening.wait(reachable);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the origin's thread panicked");
        }
    }
}
