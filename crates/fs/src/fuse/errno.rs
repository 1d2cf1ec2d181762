//! The error number that a reader sees.

use fuser::Errno;
use millpond_core::ReadError;

/// The error number for a failed read, or `None` where the request must stay unanswered, because the kernel will resend it
/// to a successor.
pub(crate) fn of_read(error: &ReadError) -> Option<Errno> {
    match error {
        // The source no longer has the version of the catalog: never a mix of two.
        ReadError::Changed { .. } => Some(Errno::ESTALE),
        ReadError::Unavailable { .. } => Some(Errno::EIO),
        // Only a node of a deleted catalog gets here: it is stale, like a file removed at an NFS server.
        ReadError::Unknown { .. } => Some(Errno::ESTALE),
        ReadError::Stopping => None,
    }
}

/// The error number for a catalog that cannot be read.
pub(crate) fn of_catalog(error: &millpond_catalog::Error) -> Errno {
    match error {
        millpond_catalog::Error::WrongKind { .. } => Errno::ENOTDIR,
        millpond_catalog::Error::Io { .. }
        | millpond_catalog::Error::Corrupt { .. }
        | millpond_catalog::Error::Options(_) => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use millpond_core::ObjectId;

    use super::*;

    #[test]
    fn each_failure_has_its_number() {
        let id = ObjectId::from_bytes([7; 16]);
        let number = |error| of_read(&error).map(|errno| errno.code());
        assert_eq!(number(ReadError::Changed { id }), Some(libc::ESTALE));
        assert_eq!(number(ReadError::Unknown { id }), Some(libc::ESTALE));
        assert_eq!(
            number(ReadError::Unavailable {
                id,
                reason: "no".to_owned()
            }),
            Some(libc::EIO)
        );
        assert_eq!(number(ReadError::Stopping), None);
    }
}
