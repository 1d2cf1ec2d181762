//! Which replica leads: whoever holds the Lease.
//!
//! [`decide`] is the rule, without a clock or a network. The holder renews every [`RETRY_PERIOD`]; one that has not renewed for
//! [`LEASE_DURATION`], by the clock of whoever looks, is taken to be gone. A leader that cannot renew in time ends its process
//! before that, so that two never lead at once. On a planned end the Lease is given back, and the next leads at once.

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
/// A leader that has not renewed for so long ends.
const RENEW_DEADLINE: Duration = Duration::from_secs(12);

/// What a replica saw of the Lease, and when it last changed by its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ObservedLease {
    holder: String,
    renewed: Option<Timestamp>,
    at: Instant,
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It is free, or its holder is gone.
    Acquire,
    /// It is ours.
    Renew,
    /// Somebody else holds it.
    Wait,
}

fn decide(seen: &ObservedLease, me: &str, now: Instant) -> Decision {
    if seen.holder == me {
        Decision::Renew
    } else if seen.holder.is_empty() || now.duration_since(seen.at) > LEASE_DURATION {
        Decision::Acquire
    } else {
        Decision::Wait
    }
}

/// Takes part in the election.
pub(crate) struct Election {
    api: Api<Lease>,
    me: String,
    leads: watch::Sender<bool>,
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, me: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            me: me.to_owned(),
            leads: watch::Sender::new(false),
        }
    }

    /// Whether this replica leads.
    pub(crate) fn leadership(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Takes part until `stop`.
    ///
    /// # Errors
    /// It led, and leads no more.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut seen: Option<ObservedLease> = None;
        let mut renewed = Instant::now();
        loop {
            let leads = *self.leads.borrow();
            match self.step(&mut seen).await {
                Ok(true) => {
                    renewed = Instant::now();
                    if !leads {
                        info!(identity = self.me, "leads");
                        self.leads.send_replace(true);
                    }
                }
                Ok(false) if leads => bail!("another replica leads"),
                Ok(false) => {}
                Err(error) => warn!(%error, "failed to look at the Lease"),
            }
            if leads && renewed.elapsed() > RENEW_DEADLINE {
                bail!(
                    "the Lease could not be renewed for {} s",
                    RENEW_DEADLINE.as_secs()
                );
            }
            let wait = if leads { RETRY_PERIOD } else { RETRY_PERIOD / 2 };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                if *self.leads.borrow() {
                    self.leads.send_replace(false);
                    self.give_back().await;
                }
                return Ok(());
            }
        }
    }

    /// Looks, and acquires or renews; whether the Lease is ours now.
    async fn step(&self, seen: &mut Option<ObservedLease>) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.held(0)),
            };
            return conflict_is_no(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let now = Instant::now();
        let renewed = spec.renew_time.as_ref().map(|time| time.0);
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let current = match seen.take() {
            Some(known) if known.holder == holder && known.renewed == renewed => known,
            _ => ObservedLease {
                holder,
                renewed,
                at: now,
            },
        };
        let decision = decide(&current, &self.me, now);
        *seen = Some(current);
        let transitions = spec.lease_transitions.unwrap_or(0);
        let next = match decision {
            Decision::Wait => return Ok(false),
            Decision::Acquire => self.held(transitions.saturating_add(1)),
            Decision::Renew => LeaseSpec {
                acquire_time: spec.acquire_time.clone(),
                ..self.held(transitions)
            },
        };
        // Replaced with the version that was read: of two who acquire at once one fails.
        let replaced = Lease {
            spec: Some(next),
            ..lease
        };
        conflict_is_no(self.api.replace(NAME, &PostParams::default(), &replaced).await)
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

    async fn give_back(&self) {
        let given = async {
            if let Some(mut lease) = self.api.get_opt(NAME).await?
                && let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_deref() == Some(&self.me)
            {
                spec.holder_identity = None;
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            kube::Result::<()>::Ok(())
        };
        match tokio::time::timeout(RETRY_PERIOD, given).await {
            Ok(Ok(())) => info!("gave the Lease back"),
            Ok(Err(error)) => warn!(%error, "failed to give the Lease back"),
            Err(_elapsed) => warn!("the Lease could not be given back in time"),
        }
    }
}

fn conflict_is_no<T>(result: kube::Result<T>) -> kube::Result<bool> {
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
    async fn the_rule_of_the_lease() {
        let at = Instant::now();
        let seen = |holder: &str| ObservedLease {
            holder: holder.to_owned(),
            renewed: None,
            at,
        };
        assert_eq!(decide(&seen(""), "me", at), Decision::Acquire);
        assert_eq!(decide(&seen("me"), "me", at), Decision::Renew);
        assert_eq!(decide(&seen("other"), "me", at + LEASE_DURATION), Decision::Wait);
        assert_eq!(
            decide(&seen("other"), "me", at + LEASE_DURATION * 2),
            Decision::Acquire
        );
    }
}
