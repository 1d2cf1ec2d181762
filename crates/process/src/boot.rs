//! The kernel's boot id: another one means that the machine was started again.

use std::io;

/// Tests pretend another boot by this environment variable. Not for users: the name may go at any time.
pub const BOOT_ID_OVERRIDE: &str = "UNSTABLE_MILLPOND_BOOT_ID";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot of the kernel.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    match std::env::var(BOOT_ID_OVERRIDE) {
        Ok(id) if !id.is_empty() => Ok(id),
        _ => Ok(std::fs::read_to_string(BOOT_ID)?.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_id() {
        let id = boot_id().unwrap();
        assert!(!id.is_empty());
        assert_eq!(id, boot_id().unwrap());
    }
}
