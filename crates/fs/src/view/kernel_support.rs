//! The kernel's support for kernel views, found by a trial mount: a small overlay with a redirect into a data layer,
//! read, and its open reported by fanotify. The kernel's version and configuration are not considered.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, XattrFlags, openat, setxattr};

use super::error::ViewError;
use super::opens::OpenEvents;
use super::spec::OverlayMode;
use crate::mount::{Context, DetachedMount, MountError, PathValue, detach};

const CONTENT: &[u8] = b"behind a redirect";

/// What this kernel supports.
#[derive(Debug)]
pub struct KernelSupport {
    /// The options of views; the error is why there can be no kernel view.
    pub mode: Result<OverlayMode, ViewError>,
    /// Whether opens can be counted in that mode; the error is why not.
    pub counting: Result<(), ViewError>,
}

impl KernelSupport {
    /// Probes in a new directory below `directory`, on a small tmpfs of its own: some milliseconds. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The tmpfs cannot be mounted.
    pub fn probe(directory: &Path) -> Result<Self, ViewError> {
        let trial = TrialMount::prepare(directory)?;
        let best = trial.try_mode(OverlayMode::Handles).and_then(|view| {
            trial.try_counting(OverlayMode::Handles, &view)?;
            Ok(())
        });
        if best.is_ok() {
            return Ok(Self {
                mode: Ok(OverlayMode::Handles),
                counting: Ok(()),
            });
        }
        Ok(match trial.try_mode(OverlayMode::Descriptors) {
            Ok(view) => Self {
                mode: Ok(OverlayMode::Descriptors),
                counting: trial.try_counting(OverlayMode::Descriptors, &view),
            },
            Err(error) => {
                let reason = error.to_string();
                Self {
                    mode: Err(error),
                    counting: Err(ViewError::Unsupported { reason }),
                }
            }
        })
    }
}

/// A tmpfs with the layers of a view of one file.
struct TrialMount {
    point: PathBuf,
}

impl TrialMount {
    fn prepare(directory: &Path) -> Result<Self, ViewError> {
        // Several threads of a process may probe concurrently.
        static TRIALS: AtomicU64 = AtomicU64::new(0);
        let number = TRIALS.fetch_add(1, Ordering::Relaxed);
        let point = directory.join(format!("trial-{}-{number}", std::process::id()));
        fs::create_dir(&point).map_err(ViewError::system("make a directory for a trial mount"))?;
        let trial = Self { point };
        let context = Context::open("tmpfs", &trial.point)?;
        context.text("source", OsStr::new("millpond-trial"))?;
        context.text("size", OsStr::new("1M"))?;
        context.create_writable()?.attach(&trial.point)?;
        trial
            .fill()
            .map_err(ViewError::system("fill the layers of a trial mount"))?;
        Ok(trial)
    }

    fn fill(&self) -> std::io::Result<()> {
        fs::create_dir(self.layer("catalog"))?;
        fs::create_dir_all(self.layer("objects").join("ab"))?;
        fs::create_dir(self.layer("last"))?;
        let file = self.layer("catalog").join("file");
        File::create(&file)?.set_len(CONTENT.len() as u64)?;
        setxattr(&file, "trusted.overlay.metacopy", b"", XattrFlags::empty())?;
        setxattr(
            &file,
            "trusted.overlay.redirect",
            b"/ab/object",
            XattrFlags::empty(),
        )?;
        fs::write(self.layer("objects").join("ab/object"), CONTENT)
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// Mounts an overlay of the layers, attached nowhere, and reads the file through it.
    fn try_mode(&self, mode: OverlayMode) -> Result<DetachedMount, ViewError> {
        let context = Context::open("overlay", &self.point)?;
        for (key, value) in mode.options() {
            context.text(key, OsStr::new(value))?;
        }
        for (key, name) in [
            ("lowerdir+", "catalog"),
            ("datadir+", "objects"),
            ("datadir+", "last"),
        ] {
            context.text(key, PathValue::of(&self.layer(name))?.text())?;
        }
        let view = context.create()?;
        let mut content = Vec::new();
        File::from(self.open(&view)?)
            .read_to_end(&mut content)
            .map_err(ViewError::system("read through a trial overlay"))?;
        if content == CONTENT {
            return Ok(view);
        }
        Err(ViewError::Unsupported {
            reason: "overlayfs does not follow redirects into data layers".to_owned(),
        })
    }

    fn open(&self, view: &DetachedMount) -> Result<std::os::fd::OwnedFd, MountError> {
        openat(
            view.as_fd(),
            "file",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| MountError::new("open a file of a trial overlay in", &self.point, error))
    }

    fn try_counting(&self, mode: OverlayMode, view: &DetachedMount) -> Result<(), ViewError> {
        let events = OpenEvents::new(mode)?;
        events.mark(view.as_fd())?;
        drop(self.open(view)?);
        if events.is_pending()? {
            return Ok(());
        }
        Err(ViewError::Unsupported {
            reason: "fanotify does not report opens of an overlay".to_owned(),
        })
    }
}

impl Drop for TrialMount {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.point) {
            tracing::debug!(%error, "nothing to detach after a trial");
        }
        if let Err(error) = fs::remove_dir(&self.point) {
            tracing::warn!(%error, path = ?self.point, "failed to remove the directory of a trial mount");
        }
    }
}
