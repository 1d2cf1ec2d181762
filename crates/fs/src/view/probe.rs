//! The node's support for views, for a user: each result with its consequence and its fix.

use std::fs::{self, OpenOptions};
use std::path::Path;

use millpond_catalog::{BuildOptions, Builder, SourceInfo};
use rustix::thread::{CapabilitySet, capabilities};

use super::error::ViewError;
use super::kernel_support::KernelSupport;
use super::spec::OverlayMode;
use crate::mount::{ImageBacking, detached_image};

/// The first kernel that has FUSE passthrough and resends requests.
const PASSTHROUGH_SINCE: (u32, u32) = (6, 9);

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Full support.
    Good,
    /// Views work, at a cost.
    Slower,
    /// There can be no kernel view, or no view at all.
    Missing,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub subject: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// What was found, and its consequence.
    pub detail: String,
    /// What a user can do about it; `None`: nothing needs to be done.
    pub fix: Option<&'static str>,
}

impl Finding {
    fn good(subject: &'static str, detail: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: Verdict::Good,
            detail: detail.into(),
            fix: None,
        }
    }

    fn slower(subject: &'static str, detail: impl Into<String>, fix: &'static str) -> Self {
        Self {
            subject,
            verdict: Verdict::Slower,
            detail: detail.into(),
            fix: Some(fix),
        }
    }

    fn missing(subject: &'static str, detail: impl Into<String>, fix: &'static str) -> Self {
        Self {
            subject,
            verdict: Verdict::Missing,
            detail: detail.into(),
            fix: Some(fix),
        }
    }
}

/// Checks everything that views need, by small trial mounts below `directory`, which are removed again.
pub fn probe(directory: &Path) -> Vec<Finding> {
    let mut findings = vec![privilege(), fuse_device(), passthrough()];
    findings.push(images(directory));
    findings.extend(overlay(directory));
    findings
}

/// Returns whether kernel views can be mounted.
pub fn allows_kernel_views(findings: &[Finding]) -> bool {
    let kernel = [PRIVILEGE, IMAGES, OVERLAY];
    !findings
        .iter()
        .any(|found| kernel.contains(&found.subject) && found.verdict == Verdict::Missing)
}

const PRIVILEGE: &str = "privilege to mount";
const FUSE: &str = "FUSE";
const PASSTHROUGH: &str = "FUSE passthrough";
const IMAGES: &str = "EROFS images";
const OVERLAY: &str = "overlay of data-only layers";
const COUNTING: &str = "counting of opens";

fn privilege() -> Finding {
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(CapabilitySet::SYS_ADMIN) => {
            Finding::good(PRIVILEGE, "the process has CAP_SYS_ADMIN")
        }
        _ => Finding::missing(
            PRIVILEGE,
            "the process lacks CAP_SYS_ADMIN, so there are only FUSE views, read without passthrough",
            "run as root, or give the program CAP_SYS_ADMIN",
        ),
    }
}

fn fuse_device() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::good(FUSE, "/dev/fuse can be opened"),
        Err(error) => Finding::missing(
            FUSE,
            format!("/dev/fuse cannot be opened ({error}), so nothing can be mounted"),
            "load the module (modprobe fuse), and let this user read and write /dev/fuse",
        ),
    }
}

fn passthrough() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    if version(release).is_some_and(|version| version >= PASSTHROUGH_SINCE) {
        Finding::good(
            PASSTHROUGH,
            format!("Linux {release} has it, unless it was built without"),
        )
    } else {
        Finding::slower(
            PASSTHROUGH,
            format!("Linux {release} lacks it: FUSE views copy every byte, and none survives its server"),
            "use Linux 6.9 or later",
        )
    }
}

/// The first two numbers of a release such as `6.18.44-fc`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn images(directory: &Path) -> Finding {
    match image_backing(directory) {
        Ok(ImageBacking::File) => Finding::good(IMAGES, "mounted from the file itself"),
        Ok(ImageBacking::Loop) => Finding::slower(
            IMAGES,
            "mounted through loop devices: a little more memory and time for each generation",
            "use Linux 6.12 or later with CONFIG_EROFS_FS_BACKED_BY_FILE",
        ),
        Err(error) => Finding::missing(
            IMAGES,
            format!("not mounted ({error}), so there are only FUSE views"),
            "load the module (modprobe erofs), or use a kernel with CONFIG_EROFS_FS and CONFIG_EROFS_FS_XATTR",
        ),
    }
}

/// Mounts an empty catalog, attached nowhere, in the best way that works.
fn image_backing(directory: &Path) -> Result<ImageBacking, ViewError> {
    let place = directory.join(format!("probe-{}", std::process::id()));
    fs::create_dir(&place).map_err(ViewError::system("make a directory for a trial image"))?;
    let backing = mount_empty_image(&place);
    fs::remove_dir_all(&place).map_err(ViewError::system("remove the directory of a trial image"))?;
    backing
}

fn mount_empty_image(place: &Path) -> Result<ImageBacking, ViewError> {
    let (image, index) = (place.join("probe.erofs"), place.join("probe.index"));
    let failed = |error: millpond_catalog::Error| ViewError::Catalog {
        path: image.clone(),
        reason: error.to_string(),
    };
    let options = BuildOptions {
        sources: vec![SourceInfo {
            id: "file:///".to_owned(),
            ..SourceInfo::default()
        }],
        spill_directory: place.to_owned(),
        ..BuildOptions::default()
    };
    Builder::new(options)
        .and_then(|builder| builder.finish(&image, &index))
        .map_err(failed)?;
    if detached_image(&image, ImageBacking::File).is_ok() {
        return Ok(ImageBacking::File);
    }
    detached_image(&image, ImageBacking::Loop)?;
    Ok(ImageBacking::Loop)
}

fn overlay(directory: &Path) -> [Finding; 2] {
    let mode = match KernelSupport::probe(directory) {
        Ok(KernelSupport {
            mode: Ok(mode),
            counting,
        }) => (mode, counting),
        Ok(KernelSupport { mode: Err(error), .. }) | Err(error) => {
            return [
                Finding::missing(
                    OVERLAY,
                    format!("not mounted ({error}), so there are only FUSE views"),
                    "use Linux 6.7 or later with CONFIG_OVERLAY_FS, outside of containers without CAP_SYS_ADMIN",
                ),
                Finding::missing(COUNTING, "needs kernel views", "see above"),
            ];
        }
    };
    let counting = match mode {
        (OverlayMode::Handles, Ok(())) => Finding::good(COUNTING, "fanotify reports opens by file handle"),
        (OverlayMode::Descriptors, Ok(())) => Finding::slower(
            COUNTING,
            "fanotify reports opens by descriptor: some microseconds more for each, and an evicted file waits for it",
            "use a kernel whose overlayfs can be exported (CONFIG_EXPORTFS)",
        ),
        (_, Err(error)) => Finding::slower(
            COUNTING,
            format!(
                "not possible ({error}): hit rates lack what the kernel serves alone, and Datasets that evict have FUSE views only"
            ),
            "use a kernel with CONFIG_FANOTIFY",
        ),
    };
    [
        Finding::good(OVERLAY, "mounted, redirects are followed"),
        counting,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_numbers_of_releases() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("7.0"), Some((7, 0)));
        assert_eq!(version("6"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn only_what_is_missing_forbids_kernel_views() {
        let good = [
            Finding::good(PRIVILEGE, ""),
            Finding::slower(IMAGES, "", ""),
            Finding::missing(FUSE, "", ""),
        ];
        assert!(allows_kernel_views(&good));
        assert!(!allows_kernel_views(&[Finding::missing(OVERLAY, "", "")]));
    }

    #[test]
    fn this_node_has_all_that_views_need() {
        let directory = tempfile::tempdir().unwrap();
        let findings = probe(directory.path());
        for finding in &findings {
            assert_eq!(
                (finding.verdict, finding.fix),
                (Verdict::Good, None),
                "{finding:?}"
            );
        }
        assert!(allows_kernel_views(&findings));
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }
}
