//! `state.json`: what the directory caches, and whether its objects can be trusted.
//!
//! Objects are written without fsync, so after a crash of the machine a file may hold anything. The kernel's boot id
//! shows one: the same id as in the file means that the machine did not crash since (a kill of the process loses nothing that
//! was written); another one is harmless only after a clean stop, which wrote everything to disk first. The mark of the
//! clean stop is removed, durably, before the first write that follows it.

use std::io::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs::File, io};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::directory::{Directory, TierDir};

/// The version of the directory's layout.
pub(crate) const LAYOUT: u32 = 1;

const NAME: &str = "state.json";
const NEW_NAME: &str = "state.json.new";

/// More is not read: a real one has a few hundred bytes.
const MAX_BYTES: u64 = 1 << 16;

/// The time between two crashes of the machine: blocks that were written in another epoch have to be verified.
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

/// Whether the machine crashed since a directory was last written, and the state that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrashCheck {
    /// The state of the tier that is being opened.
    pub(crate) state: State,
    /// Whether the objects in `objects/` have to be verified.
    pub(crate) crashed: bool,
    /// Whether the state has to be on disk before anything else is written.
    pub(crate) changed: bool,
}

impl State {
    /// Checks a state that was found. No state, or an unreadable one, is a crash: there may be objects all the same.
    pub(crate) fn check(found: Option<Self>, identity: &str, boot_id: &str) -> CrashCheck {
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

    /// Reads the state; `None` where there is none, or an unreadable one.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn read(directory: &Directory) -> io::Result<Option<Self>> {
        let Some(file) = directory.open(TierDir::Root, NAME)? else {
            return Ok(None);
        };
        let text = io::read_to_string(io::Read::take(file, MAX_BYTES));
        Ok(text.ok().and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Writes the state, durably.
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

/// The state file of an open tier.
#[derive(Debug)]
pub(crate) struct StateFile {
    state: State,
    /// Whether the state on disk was another one when the tier was opened.
    changed: bool,
    /// One thread at a time writes the file.
    writing: Mutex<()>,
}

impl StateFile {
    pub(super) fn new(state: State, changed: bool) -> Arc<Self> {
        Arc::new(Self {
            state,
            changed,
            writing: Mutex::new(()),
        })
    }

    pub(super) const fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// Writes the state, where it was another one.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write_if_changed(&self, directory: &Directory) -> io::Result<()> {
        if self.changed {
            self.write(directory)?;
        }
        Ok(())
    }

    /// Writes the state, durably.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write(&self, directory: &Directory) -> io::Result<()> {
        let _only = self.writing.lock();
        self.state.write(directory)
    }

    /// Writes the state of a clean stop, durably.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write_clean(&self, directory: &Directory) -> io::Result<()> {
        let _only = self.writing.lock();
        let mut state = self.state.clone();
        state.clean = true;
        state.write(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(boot_id: &str, clean: bool) -> State {
        State::check(None, "s3://bucket", boot_id).state.with_clean(clean)
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
            let check = State::check(Some(state("a", clean)), "s3://bucket", boot_id);
            assert_eq!(check.crashed, crashed, "clean {clean}, boot {boot_id}");
            assert_eq!(check.changed, clean || boot_id != "a");
        }
    }

    #[test]
    fn a_crash_begins_another_epoch_and_nothing_else_does() {
        let before = state("a", false);
        assert_eq!(
            State::check(Some(before.clone()), "x", "a").state.epoch,
            before.epoch
        );
        assert_ne!(
            State::check(Some(before.clone()), "x", "b").state.epoch,
            before.epoch
        );
    }

    #[test]
    fn a_missing_state_is_a_crash() {
        assert!(State::check(None, "x", "a").crashed);
    }
}
