//! Converts the messages between driver and worker to the values of [`millpond_core::Worker`], and back.
//!
//! Received messages are not trusted: each value is checked here, once.

use bytes::Bytes;
use millpond_core::ObjectId;

use crate::worker as wire;
use millpond_core::{Generation, Inode, LandOutcome, ObjectRef, OpenCount, ReadError};

/// The length of an object's id.
const ID_BYTES: usize = 16;

/// Why a message is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMessage {
    /// A part is missing that every sender sets.
    #[error("a message has no {part}")]
    Missing {
        /// The name of the part.
        part: &'static str,
    },
    /// The id of an object has another length.
    #[error("an object's id has {length} bytes instead of 16")]
    Id {
        /// Its length.
        length: usize,
    },
}

/// Parses the id of an object.
///
/// # Errors
/// It has another length.
pub fn id(bytes: &[u8]) -> Result<ObjectId, InvalidMessage> {
    let bytes =
        <[u8; ID_BYTES]>::try_from(bytes).map_err(|_length| InvalidMessage::Id { length: bytes.len() })?;
    Ok(ObjectId::from_bytes(bytes))
}

/// Returns the bytes of the id of an object.
pub fn id_bytes(id: ObjectId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// Parses a reference to an object.
///
/// # Errors
/// It is missing, or its id is invalid.
pub fn object(object: Option<wire::Object>) -> Result<ObjectRef, InvalidMessage> {
    let wire::Object {
        generation,
        inode,
        id: bytes,
        size_bytes,
    } = object.ok_or(InvalidMessage::Missing { part: "object" })?;
    Ok(ObjectRef {
        generation: Generation(generation),
        inode: Inode(inode),
        id: id(&bytes)?,
        size_bytes,
    })
}

/// Parses a count of opens.
///
/// # Errors
/// The id is invalid.
pub fn opens(opens: &wire::Opens) -> Result<OpenCount, InvalidMessage> {
    Ok(OpenCount {
        id: id(&opens.id)?,
        times: opens.times,
    })
}

impl From<ObjectRef> for wire::Object {
    fn from(object: ObjectRef) -> Self {
        let ObjectRef {
            generation,
            inode,
            id,
            size_bytes,
        } = object;
        Self {
            generation: generation.0,
            inode: inode.0,
            id: id_bytes(id),
            size_bytes,
        }
    }
}

impl From<OpenCount> for wire::Opens {
    fn from(OpenCount { id, times }: OpenCount) -> Self {
        Self {
            id: id_bytes(id),
            times,
        }
    }
}

impl From<LandOutcome> for wire::Landed {
    fn from(landed: LandOutcome) -> Self {
        match landed {
            LandOutcome::ThroughFuse => Self::ThroughFuse,
            LandOutcome::Landed => Self::Landed,
        }
    }
}

impl From<wire::Landed> for LandOutcome {
    fn from(landed: wire::Landed) -> Self {
        match landed {
            wire::Landed::ThroughFuse => Self::ThroughFuse,
            wire::Landed::Landed | wire::Landed::LandedCached => Self::Landed,
        }
    }
}

impl From<ReadError> for wire::Failure {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Changed { .. } => wire::FailureKind::FailureChanged,
            ReadError::Unavailable { .. } => wire::FailureKind::FailureUnavailable,
            ReadError::Unknown { .. } => wire::FailureKind::FailureUnknown,
            ReadError::Stopping => wire::FailureKind::FailureStopping,
        };
        let reason = match error {
            ReadError::Unavailable { reason, .. } => reason,
            other => other.to_string(),
        };
        Self {
            kind: kind.into(),
            reason,
        }
    }
}

impl wire::Failure {
    /// Returns the error of the request for `id`.
    pub fn of(self, id: ObjectId) -> ReadError {
        match self.kind() {
            wire::FailureKind::FailureChanged => ReadError::Changed { id },
            wire::FailureKind::FailureUnknown => ReadError::Unknown { id },
            wire::FailureKind::FailureStopping => ReadError::Stopping,
            wire::FailureKind::FailureUnavailable => ReadError::Unavailable {
                id,
                reason: self.reason,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sent_object_parses_to_the_same_object() {
        let sent = ObjectRef {
            generation: Generation(7),
            inode: Inode(1 << 35),
            id: ObjectId::from_bytes([9; 16]),
            size_bytes: u64::MAX,
        };
        assert_eq!(object(Some(sent.into())).unwrap(), sent);
    }

    #[test]
    fn an_id_of_another_length_is_refused() {
        let error = id(&[1; 15]).unwrap_err();
        assert_eq!(error.to_string(), "an object's id has 15 bytes instead of 16");
        assert!(object(None).is_err());
    }

    #[test]
    fn landed_objects_are_understood_across_versions() {
        for outcome in [LandOutcome::Landed, LandOutcome::ThroughFuse] {
            assert_eq!(LandOutcome::from(wire::Landed::from(outcome)), outcome);
        }
        // What a driver and a worker of an older version send and understand.
        let sent = |outcome| i32::from(wire::Landed::from(outcome));
        assert_eq!(
            (sent(LandOutcome::ThroughFuse), sent(LandOutcome::Landed)),
            (0, 1)
        );
        for (number, outcome) in [
            (0, LandOutcome::ThroughFuse),
            (1, LandOutcome::Landed),
            (2, LandOutcome::Landed),
        ] {
            let received = wire::Landed::try_from(number).unwrap();
            assert_eq!(LandOutcome::from(received), outcome);
        }
    }

    #[test]
    fn failures_keep_their_kind() {
        let id = ObjectId::from_bytes([1; 16]);
        let errors = [
            ReadError::Changed { id },
            ReadError::Unknown { id },
            ReadError::Stopping,
            ReadError::Unavailable {
                id,
                reason: "no".to_owned(),
            },
        ];
        for error in errors {
            let text = error.to_string();
            assert_eq!(wire::Failure::from(error).of(id).to_string(), text);
        }
    }
}
