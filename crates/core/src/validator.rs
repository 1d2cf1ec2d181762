//! Validators, which distinguish the versions of an object.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Prefixes of the texts of validators that are not ETags, and of (malformed) ETags with one of these prefixes.
const ETAG: &str = "etag:";
const VERSION: &str = "version:";
const MODIFIED: &str = "modified:";

/// A point in time as file systems store it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 10^9.
    pub nanos: u32,
}

impl Time {
    /// The time `nanos` after `secs`; full seconds in `nanos` (a leap second's) are carried over.
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Self {
            secs: secs.saturating_add((nanos / NANOS_PER_SECOND) as i64),
            nanos: nanos % NANOS_PER_SECOND,
        }
    }
}

/// Validator of an object's version, a condition of every request, so that bytes of two versions are never mixed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Validator {
    /// Strong ETag, as the source wrote it.
    ETag(String),
    /// Version id of a versioned bucket.
    VersionId(String),
    /// Time of the last change, if the source has nothing better.
    Modified {
        /// Time as the source reports it.
        time: Time,
    },
}

impl Validator {
    /// Returns the text in `user.millpond.etag`: an ETag as it is, else with a prefix that names the kind.
    ///
    /// Two validators have the same text only if they are the same.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::ETag(etag)
                if [ETAG, VERSION, MODIFIED]
                    .iter()
                    .any(|word| etag.starts_with(word)) =>
            {
                Cow::Owned(format!("{ETAG}{etag}"))
            }
            Self::ETag(etag) => Cow::Borrowed(etag),
            Self::VersionId(id) => Cow::Owned(format!("{VERSION}{id}")),
            Self::Modified { time } => {
                let Time { secs, nanos } = Time::new(time.secs, time.nanos);
                Cow::Owned(format!("{MODIFIED}{secs}.{nanos:09}"))
            }
        }
    }

    /// Returns the validator with this [`text`](Self::text), if there is one.
    pub fn from_text(text: &str) -> Option<Self> {
        let validator = if let Some(etag) = text.strip_prefix(ETAG) {
            Self::ETag(etag.to_owned())
        } else if let Some(id) = text.strip_prefix(VERSION) {
            Self::VersionId(id.to_owned())
        } else if let Some(time) = text.strip_prefix(MODIFIED) {
            let (secs, nanos) = time.split_once('.')?;
            Self::Modified {
                time: Time {
                    secs: secs.parse().ok()?,
                    nanos: nanos.parse().ok()?,
                },
            }
        } else {
            Self::ETag(text.to_owned())
        };
        (validator.text() == text).then_some(validator)
    }
}

impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn validator() -> impl Strategy<Value = Validator> {
        prop_oneof![
            "(etag:|version:|modified:)?.{0,20}".prop_map(Validator::ETag),
            "(etag:|version:|modified:)?.{0,20}".prop_map(Validator::VersionId),
            (any::<i64>(), 0..NANOS_PER_SECOND).prop_map(|(secs, nanos)| Validator::Modified {
                time: Time { secs, nanos }
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_text_leads_back_to_its_validator(validator in validator()) {
            prop_assert_eq!(Validator::from_text(&validator.text()), Some(validator));
        }

        #[test]
        fn no_text_has_two_validators(text in "(etag:|version:|modified:)?[0-9.a-e-]{0,20}") {
            if let Some(validator) = Validator::from_text(&text) {
                prop_assert_eq!(validator.text(), text);
            }
        }
    }

    #[test]
    fn an_ordinary_etag_is_its_own_text() {
        assert_eq!(Validator::ETag("\"abc\"".to_owned()).text(), "\"abc\"");
    }

    #[test]
    fn whole_seconds_are_carried_over() {
        assert_eq!(
            Time::new(59, 1_500_000_000),
            Time {
                secs: 60,
                nanos: 500_000_000
            }
        );
        let leap = Validator::Modified {
            time: Time {
                secs: 59,
                nanos: 1_500_000_000,
            },
        };
        assert_eq!(leap.text(), "modified:60.500000000");
    }

    #[test]
    fn texts_of_no_validator_are_refused() {
        for text in [
            "modified:",
            "modified:1",
            "modified:1.5",
            "modified:+1.000000000",
            "etag:x",
            "etag:",
        ] {
            assert_eq!(Validator::from_text(text), None, "{text}");
        }
    }
}
