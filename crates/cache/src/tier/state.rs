//! `state.json`: whose the directory is, and whether what is in it can be believed.
//!
//! Objects are written without fsync, so after a crash of the machine a file may hold anything. The kernel's boot id
//! tells: the same one as noted means that no crash lies between (a kill of the process loses nothing that was
//! written); another one is harmless only after a clean stop, which wrote everything to disk first. The mark of the
//! clean stop is taken away, durably, before the first write that follows it.

use std::io::Write;
use std::num::NonZeroU32;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs::File, io};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::directory::{Directory, Place};

/// The version of the directory's layout.
pub(crate) const LAYOUT: u32 = 1;

const NAME: &str = "state.json";
const NEW_NAME: &str = "state.json.new";

/// More is not read: a real one has a few hundred bytes.
const BYTES_MAX: u64 = 1 << 16;

/// The time between two crashes of the machine: what was written in another epoch has to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Epoch(pub(crate) NonZeroU32);

impl Epoch {
    /// An epoch that no entry can be of: the wall clock in seconds, or one more than the last.
    fn after(last: Option<Self>) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let now = u32::try_from(now).unwrap_or(u32::MAX - 1);
        let next = last.map_or(1, |last| last.0.get().wrapping_add(1)).max(now);
        Self(NonZeroU32::new(next).unwrap_or(NonZeroU32::MIN))
    }
}

/// The content of `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) layout: u32,
    pub(crate) identity: String,
    pub(crate) boot_id: String,
    pub(crate) clean: bool,
    pub(crate) epoch: Epoch,
}

/// What a directory's state means for a store that opens it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrashCheck {
    /// The state to go on with.
    pub(crate) state: State,
    /// Whether what is in `objects/` has to be verified.
    pub(crate) crashed: bool,
    /// Whether the state has to be on disk before anything else is written.
    pub(crate) changed: bool,
}

impl State {
    /// Judges what was found. No state, or an unreadable one, is a crash: there may be objects all the same.
    pub(crate) fn judge(found: Option<Self>, identity: &str, boot_id: &str) -> CrashCheck {
        let trusted = found
            .as_ref()
            .filter(|found| found.boot_id == boot_id || found.clean);
        let epoch = match trusted {
            Some(state) => state.epoch,
            None => Epoch::after(found.as_ref().map(|found| found.epoch)),
        };
        let crashed = trusted.is_none();
        let (identity, boot_id) = (identity.to_owned(), boot_id.to_owned());
        let state = Self {
            layout: LAYOUT,
            identity,
            boot_id,
            clean: false,
            epoch,
        };
        let changed = found.as_ref() != Some(&state);
        CrashCheck {
            state,
            crashed,
            changed,
        }
    }

    /// Reads it, or `None` where there is none, or none that can be read as one.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn read(directory: &Directory) -> io::Result<Option<Self>> {
        let Some(file) = directory.open(Place::Root, NAME)? else {
            return Ok(None);
        };
        let text = io::read_to_string(io::Read::take(file, BYTES_MAX));
        Ok(text.ok().and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn write(&self, directory: &Directory) -> io::Result<()> {
        let text = serde_json::to_string(self)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory.root(), NEW_NAME, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(directory.root(), NEW_NAME, directory.root(), NAME)?;
        rustix::fs::fsync(directory.root())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(boot_id: &str, clean: bool) -> State {
        State::judge(None, "s3://bucket", boot_id).state.with_clean(clean)
    }

    impl State {
        fn with_clean(mut self, clean: bool) -> Self {
            self.clean = clean;
            self
        }
    }

    #[test]
    fn only_another_boot_without_a_clean_stop_is_a_crash() {
        for (clean, boot_id, crashed) in [
            (false, "a", false),
            (true, "a", false),
            (true, "b", false),
            (false, "b", true),
        ] {
            let verdict = State::judge(Some(state("a", clean)), "s3://bucket", boot_id);
            assert_eq!(verdict.crashed, crashed, "clean {clean}, boot {boot_id}");
            assert_eq!(verdict.changed, clean || boot_id != "a");
        }
    }

    #[test]
    fn a_crash_begins_another_epoch_and_nothing_else_does() {
        let before = state("a", false);
        assert_eq!(
            State::judge(Some(before.clone()), "x", "a").state.epoch,
            before.epoch
        );
        assert_ne!(
            State::judge(Some(before.clone()), "x", "b").state.epoch,
            before.epoch
        );
    }

    #[test]
    fn a_missing_state_is_a_crash() {
        assert!(State::judge(None, "x", "a").crashed);
    }
}
