//! Faults, switched while the server runs.
//!
//! A [`Rule`] is a [`Fault`] and the requests that it applies to. Rules are looked at in no order that matters: all
//! that apply to a request work together (of two that cut the body, the one that was added first). Which requests a
//! fraction hits is counted, not drawn: a fraction of 0.25 is each fourth request that the rule otherwise applies to.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// 503 `SlowDown`.
    SlowDown,
    /// 500 `InternalError`. (For a server that cannot be reached see [`Origin::disconnect`](crate::Origin::disconnect).)
    Gone,
    /// The body ends after so many bytes, less than its Content-Length, and the connection is closed.
    Truncate {
        /// Bytes of the body that are sent.
        after: u64,
    },
    /// The body stops after so many bytes, and the connection stays open, until the rule is removed.
    Stall {
        /// Bytes of the body that are sent.
        after: u64,
    },
    /// The connection is reset (RST) after so many bytes of the body; what was sent may be lost too.
    Reset {
        /// Bytes of the body that are sent.
        after: u64,
    },
    /// The body comes at this rate, in small pieces.
    Trickle {
        /// At least 1.
        bytes_per_second: u64,
    },
    /// The answer to a GET or HEAD names another ETag, and If-Match is ignored: a server that serves another version.
    WrongEtag,
    /// The body of a GET has so many bytes more (zeros) or less, and its Content-Length agrees with that.
    WrongLength {
        /// The difference to the right length.
        by: i64,
    },
    /// The object is replaced (same length, other bytes, other ETag) right after a GET of it was answered as it was.
    ChangeBetween,
}

/// The kinds of requests that are distinguished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// GetObject.
    Get,
    /// HeadObject, HeadBucket.
    Head,
    /// ListObjectsV2.
    List,
    /// Everything else.
    Other,
}

/// A fault and the requests that it applies to; without further calls: all, for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    fault: Fault,
    kinds: Option<Vec<Kind>>,
    prefix: Vec<u8>,
    skip: u64,
    times: Option<u64>,
    fraction: f64,
}

impl Rule {
    /// This fault for every request.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            kinds: None,
            prefix: Vec::new(),
            skip: 0,
            times: None,
            fraction: 1.0,
        }
    }

    /// Only for requests of these kinds.
    #[must_use]
    pub fn on(self, kinds: &[Kind]) -> Self {
        Self {
            kinds: Some(kinds.to_vec()),
            ..self
        }
    }

    /// Only where `bucket/key` (of a listing: `bucket/prefix`) starts so.
    #[must_use]
    pub fn under(self, prefix: impl Into<Vec<u8>>) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// Not for the first `count` of its requests.
    #[must_use]
    pub fn skip(self, count: u64) -> Self {
        Self { skip: count, ..self }
    }

    /// For `count` requests at most.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self {
            times: Some(count),
            ..self
        }
    }

    /// For this part of its requests (0 to 1), evenly spread.
    #[must_use]
    pub fn fraction(self, fraction: f64) -> Self {
        Self { fraction, ..self }
    }

    fn concerns(&self, kind: Kind, path: &[u8]) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind)) && path.starts_with(&self.prefix)
    }
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

/// Names a rule that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(u64);

/// The rules of a running origin. Clones are handles to the same rules.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
}

#[derive(Debug, Default)]
struct Rules {
    active: Vec<Active>,
    next: u64,
}

#[derive(Debug)]
struct Active {
    id: RuleId,
    rule: Rule,
    /// Requests that the rule concerned.
    seen: u64,
    /// Requests that it was applied to.
    applied: u64,
    /// Cancelled when the rule is removed: stalled responses continue.
    removed: CancellationToken,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.removed.cancel();
    }
}

impl Faults {
    /// Adds a rule; it applies from the next request on.
    pub fn add(&self, rule: impl Into<Rule>) -> RuleId {
        let mut rules = self.rules.lock();
        let id = RuleId(rules.next);
        rules.next += 1;
        let removed = CancellationToken::new();
        rules.active.push(Active {
            id,
            rule: rule.into(),
            seen: 0,
            applied: 0,
            removed,
        });
        id
    }

    /// Removes a rule; responses that it stalls continue.
    pub fn remove(&self, id: RuleId) {
        self.rules.lock().active.retain(|active| active.id != id);
    }

    /// Removes all rules; responses that they stall continue.
    pub fn clear(&self) {
        self.rules.lock().active.clear();
    }

    /// How many requests a rule was applied to; 0 for one that was removed.
    pub fn applied(&self, id: RuleId) -> u64 {
        let rules = self.rules.lock();
        rules
            .active
            .iter()
            .find(|active| active.id == id)
            .map_or(0, |active| active.applied)
    }

    /// What goes wrong with a request for `path` (`bucket/key`); counts it for the rules that concern it.
    pub(crate) fn effects(&self, kind: Kind, path: &[u8]) -> Effects {
        let mut effects = Effects::default();
        for active in &mut self.rules.lock().active {
            if active.rule.concerns(kind, path) && active.turn() {
                effects.take(active.rule.fault, &active.removed);
            }
        }
        effects
    }
}

impl Active {
    /// Counts a request and says whether it is one of those to fail.
    fn turn(&mut self) -> bool {
        let Rule {
            skip,
            times,
            fraction,
            ..
        } = self.rule;
        let index = self.seen;
        self.seen += 1;
        if index < skip || times.is_some_and(|times| self.applied >= times) {
            return false;
        }
        let position = (index - skip) as f64;
        let hit = ((position + 1.0) * fraction).floor() > (position * fraction).floor();
        self.applied += u64::from(hit);
        hit
    }
}

/// The faults of one request, together.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) slow_down: bool,
    pub(crate) gone: bool,
    pub(crate) wrong_etag: bool,
    pub(crate) change: bool,
    pub(crate) longer_by: i64,
    pub(crate) cut: Option<Cut>,
    pub(crate) trickle: Option<Trickle>,
}

/// Where a body ends early, and how.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) after: u64,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    Close,
    Reset,
    /// Until the token is cancelled.
    Stall(CancellationToken),
}

/// A body in small pieces with pauses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trickle {
    pub(crate) piece_bytes: u64,
    pub(crate) pause: Duration,
}

impl Trickle {
    /// Twenty pieces a second, or a byte at a time if that is too many.
    fn at(bytes_per_second: u64) -> Self {
        let rate = bytes_per_second.max(1);
        let piece_bytes = (rate / 20).max(1);
        Self {
            piece_bytes,
            pause: Duration::from_secs_f64(piece_bytes as f64 / rate as f64),
        }
    }
}

impl Effects {
    fn take(&mut self, fault: Fault, removed: &CancellationToken) {
        match fault {
            Fault::SlowDown => self.slow_down = true,
            Fault::Gone => self.gone = true,
            Fault::Truncate { after } => self.cut(after, End::Close),
            Fault::Stall { after } => self.cut(after, End::Stall(removed.clone())),
            Fault::Reset { after } => self.cut(after, End::Reset),
            Fault::Trickle { bytes_per_second } => self.trickle = Some(Trickle::at(bytes_per_second)),
            Fault::WrongEtag => self.wrong_etag = true,
            Fault::WrongLength { by } => self.longer_by = by,
            Fault::ChangeBetween => self.change = true,
        }
    }

    fn cut(&mut self, after: u64, end: End) {
        self.cut.get_or_insert(Cut { after, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(faults: &Faults, requests: usize) -> Vec<bool> {
        (0..requests)
            .map(|_| faults.effects(Kind::Get, b"bucket/key").slow_down)
            .collect()
    }

    #[test]
    fn a_fraction_is_spread_evenly() {
        let faults = Faults::default();
        let id = faults.add(Rule::new(Fault::SlowDown).fraction(0.25));
        assert_eq!(
            hits(&faults, 8),
            [false, false, false, true, false, false, false, true]
        );
        assert_eq!(faults.applied(id), 2);
    }

    #[test]
    fn skip_and_times_bound_the_requests() {
        let faults = Faults::default();
        faults.add(Rule::new(Fault::SlowDown).skip(2).times(3));
        assert_eq!(hits(&faults, 7), [false, false, true, true, true, false, false]);
    }

    #[test]
    fn other_kinds_and_prefixes_are_left_alone_and_not_counted() {
        let faults = Faults::default();
        faults.add(
            Rule::new(Fault::Gone)
                .on(&[Kind::Head])
                .under("bucket/a/")
                .times(1),
        );
        assert!(!faults.effects(Kind::Get, b"bucket/a/x").gone);
        assert!(!faults.effects(Kind::Head, b"bucket/b/x").gone);
        assert!(faults.effects(Kind::Head, b"bucket/a/x").gone);
        assert!(!faults.effects(Kind::Head, b"bucket/a/x").gone);
    }

    #[test]
    fn a_removed_rule_releases_what_it_stalls() {
        let faults = Faults::default();
        let id = faults.add(Fault::Stall { after: 1 });
        let Some(Cut {
            end: End::Stall(removed),
            ..
        }) = faults.effects(Kind::Get, b"").cut
        else {
            panic!("the rule applies");
        };
        assert!(!removed.is_cancelled());
        faults.remove(id);
        assert!(removed.is_cancelled());
    }
}
