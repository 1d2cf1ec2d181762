//! `millpond doctor`: checks of this machine's abilities, with fixes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use millpond_fs::view::{Finding, Verdict, allows_kernel_views, probe};

use super::terminal::{bytes, print_line};

/// File descriptors that a busy mount needs besides those of its readers.
const DESCRIPTORS: u64 = 4_096;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also check this cache directory.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let ground = tempfile::Builder::new()
        .prefix("millpond-doctor-")
        .tempdir()
        .context("failed to create a directory for trial mounts")?;
    let mut findings = probe(ground.path());
    findings.push(leases());
    findings.push(descriptors());
    findings.push(memory());
    if let Some(cache) = &arguments.cache_dir {
        findings.push(attributes(cache));
    }
    for finding in &findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok     ",
            Verdict::Slower => "slower ",
            Verdict::Missing => "missing",
        };
        print_line(format_args!("{mark}  {}: {}", finding.subject, finding.detail));
        if let Some(fix) = finding.fix {
            print_line(format_args!("         fix: {fix}"));
        }
    }
    let usable = !findings
        .iter()
        .any(|finding| finding.subject.contains("FUSE") && finding.verdict == Verdict::Missing);
    print_line(match (usable, allows_kernel_views(&findings)) {
        (true, true) => "\nMillpond can mount kernel views here.",
        (true, false) => "\nMillpond can mount FUSE views here, but no kernel views.",
        (false, _) => "\nMillpond cannot mount anything here.",
    });
    let missing = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

const fn finding(
    subject: &'static str,
    verdict: Verdict,
    detail: String,
    fix: Option<&'static str>,
) -> Finding {
    Finding {
        subject,
        verdict,
        detail,
        fix,
    }
}

fn leases() -> Finding {
    let subject = "file leases";
    match fs::read_to_string("/proc/sys/fs/leases-enable")
        .as_deref()
        .map(str::trim)
    {
        Ok("1") => finding(
            subject,
            Verdict::Good,
            "on: eviction can detect files that are in use".to_owned(),
            None,
        ),
        _ => finding(
            subject,
            Verdict::Slower,
            "off: no object can be evicted".to_owned(),
            Some("sysctl fs.leases-enable=1, or mount with --eviction never"),
        ),
    }
}

fn descriptors() -> Finding {
    let subject = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < DESCRIPTORS => finding(
            subject,
            Verdict::Slower,
            format!("limited to {limit} per process"),
            Some("raise the hard limit: ulimit -Hn 65536, or LimitNOFILE= in a systemd unit"),
        ),
        Some(limit) => finding(subject, Verdict::Good, format!("up to {limit} per process"), None),
        None => finding(subject, Verdict::Good, "no limit".to_owned(), None),
    }
}

fn memory() -> Finding {
    let subject = "memory limit";
    /// A quarter of this is the default budget of the read path, which is at least 256 MiB.
    const ENOUGH: u64 = 512 << 20;
    match millpond_process::memory_limit_bytes() {
        Some(limit) if limit < ENOUGH => finding(
            subject,
            Verdict::Slower,
            format!("{}: too little for the buffers of the read path", bytes(limit)),
            Some("raise the limit of the control group, or mount with a smaller --memory-budget"),
        ),
        Some(limit) => finding(subject, Verdict::Good, bytes(limit).to_string(), None),
        None => finding(subject, Verdict::Good, "none".to_owned(), None),
    }
}

/// Checks extended attributes: objects carry their checksums in them.
fn attributes(cache: &Path) -> Finding {
    let subject = "cache directory";
    let new = !cache.exists();
    let trial = || -> std::io::Result<()> {
        fs::create_dir_all(cache)?;
        let file = tempfile::NamedTempFile::new_in(cache)?;
        let flags = rustix::fs::XattrFlags::empty();
        Ok(rustix::fs::setxattr(
            file.path(),
            "user.millpond.doctor",
            b"1",
            flags,
        )?)
    };
    let tried = trial();
    if new {
        // The attribute may not have been set.
        let _closed = fs::remove_dir(cache);
    }
    match tried {
        Ok(()) => finding(
            subject,
            Verdict::Good,
            format!("{} supports extended attributes", cache.display()),
            None,
        ),
        Err(error) => finding(
            subject,
            Verdict::Missing,
            format!(
                "{} does not support extended attributes, which hold checksums: {error}",
                cache.display()
            ),
            Some("use a local file system with extended attributes: ext4, XFS or Btrfs"),
        ),
    }
}
