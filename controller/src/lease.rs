//! Leader election: the holder of the Lease is the leader.
//!
//! [`decide`] is the rule, without a clock or a network. The holder renews every [`RETRY_PERIOD`]. Another replica takes the
//! Lease when it has seen no renewal for [`LEASE_DURATION`] by its own clock. A leader that has not renewed for
//! [`RENEW_DEADLINE`] exits before that, so that there are never two. On shutdown the leader releases the Lease, and another
//! replica acquires it without that wait.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const NAME: &str = "millpond-controller";
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RETRY_PERIOD: Duration = Duration::from_secs(5);
const RENEW_DEADLINE: Duration = Duration::from_secs(12);

/// The last observed state of the Lease, and when it last changed by the clock of this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ObservedLease {
    holder: String,
    renewed: Option<Timestamp>,
    at: Instant,
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It is free, or its holder has not renewed it in time.
    Acquire,
    /// This replica holds it.
    Renew,
    /// Another replica holds it.
    Wait,
}

fn decide(observed: &ObservedLease, me: &str, now: Instant) -> Decision {
    if observed.holder == me {
        Decision::Renew
    } else if observed.holder.is_empty() || now.duration_since(observed.at) > LEASE_DURATION {
        Decision::Acquire
    } else {
        Decision::Wait
    }
}

/// A candidate of the election.
pub(crate) struct Election {
    api: Api<Lease>,
    me: String,
    leadership: watch::Sender<bool>,
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, me: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            me: me.to_owned(),
            leadership: watch::Sender::new(false),
        }
    }

    /// Watches whether this replica is the leader.
    pub(crate) fn leadership(&self) -> watch::Receiver<bool> {
        self.leadership.subscribe()
    }

    /// Acquires and renews the Lease until `stop`, and releases it then.
    ///
    /// # Errors
    /// This replica has lost leadership.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut observed: Option<ObservedLease> = None;
        let mut renewed = Instant::now();
        loop {
            let is_leader = *self.leadership.borrow();
            match self.try_acquire_or_renew(&mut observed).await {
                Ok(true) => {
                    renewed = Instant::now();
                    if !is_leader {
                        info!(identity = self.me, "became leader");
                        self.leadership.send_replace(true);
                    }
                }
                Ok(false) if is_leader => bail!("another replica has acquired the Lease"),
                Ok(false) => {}
                Err(error) => warn!(%error, "failed to acquire or renew the Lease; retrying"),
            }
            if is_leader && renewed.elapsed() > RENEW_DEADLINE {
                bail!("failed to renew the Lease for {} s", RENEW_DEADLINE.as_secs());
            }
            let wait = if is_leader { RETRY_PERIOD } else { RETRY_PERIOD / 2 };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                if *self.leadership.borrow() {
                    self.leadership.send_replace(false);
                    self.release().await;
                }
                return Ok(());
            }
        }
    }

    /// Reads the Lease, and acquires or renews it by the rule. Returns whether this replica holds it then.
    async fn try_acquire_or_renew(&self, observed: &mut Option<ObservedLease>) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.held(0)),
            };
            return false_on_conflict(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let now = Instant::now();
        let renewed = spec.renew_time.as_ref().map(|time| time.0);
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let current = match observed.take() {
            Some(known) if known.holder == holder && known.renewed == renewed => known,
            _ => ObservedLease {
                holder,
                renewed,
                at: now,
            },
        };
        let decision = decide(&current, &self.me, now);
        *observed = Some(current);
        let transitions = spec.lease_transitions.unwrap_or(0);
        let next = match decision {
            Decision::Wait => return Ok(false),
            Decision::Acquire => self.held(transitions.saturating_add(1)),
            Decision::Renew => LeaseSpec {
                acquire_time: spec.acquire_time.clone(),
                ..self.held(transitions)
            },
        };
        // With the version that was read: of two replicas that acquire it concurrently one fails.
        let replaced = Lease {
            spec: Some(next),
            ..lease
        };
        false_on_conflict(self.api.replace(NAME, &PostParams::default(), &replaced).await)
    }

    fn held(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) {
        let released = async {
            if let Some(mut lease) = self.api.get_opt(NAME).await?
                && let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_deref() == Some(&self.me)
            {
                spec.holder_identity = None;
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            kube::Result::<()>::Ok(())
        };
        match tokio::time::timeout(RETRY_PERIOD, released).await {
            Ok(Ok(())) => info!("released the Lease"),
            Ok(Err(error)) => warn!(%error, "failed to release the Lease; it expires"),
            Err(_elapsed) => warn!("release of the Lease timed out; it expires"),
        }
    }
}

fn false_on_conflict<T>(result: kube::Result<T>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lease_is_acquired_when_free_or_expired() {
        let at = Instant::now();
        let observed = |holder: &str| ObservedLease {
            holder: holder.to_owned(),
            renewed: None,
            at,
        };
        assert_eq!(decide(&observed(""), "me", at), Decision::Acquire);
        assert_eq!(decide(&observed("me"), "me", at), Decision::Renew);
        assert_eq!(
            decide(&observed("other"), "me", at + LEASE_DURATION),
            Decision::Wait
        );
        assert_eq!(
            decide(&observed("other"), "me", at + LEASE_DURATION * 2),
            Decision::Acquire
        );
    }
}
