//! The kernel's boot id: it changes when the machine reboots.

use std::io;

/// Environment variable by which tests simulate a reboot. Not for users: it may be removed at any time.
pub const BOOT_ID_OVERRIDE: &str = "UNSTABLE_MILLPOND_BOOT_ID";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the id of this boot of the kernel.
///
/// # Errors
/// If `/proc` is not mounted.
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
