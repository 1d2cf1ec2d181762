//! The command line, and the course of a run.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use harness::Scratch;
use harness::report::complain;
use tokio::signal::unix::{SignalKind, signal};

use crate::figure::Figure;
use crate::lab::{Lab, Programs, Sizes};
use crate::report::Report;

/// The directory of a run: one name, so that a second run is refused and what a killed one left is found.
const SCRATCH: &str = "millpond-figures-scratch";

/// Measures Millpond on this machine and shows the figures beside their goals. Needs root.
#[derive(Debug, Parser)]
#[command(name = "millpond-figures")]
pub struct Command {
    /// Measure only this; may be repeated.
    #[arg(long, value_enum)]
    only: Vec<Figure>,
    /// Where caches and native copies lie for the time of the run: a directory on ext4 with 20 GiB free [default:
    /// beside this program].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Also write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The program to measure [default: the one beside this program].
    #[arg(long)]
    millpond: Option<PathBuf>,
    /// Small sizes and few rounds, to see that everything runs. The figures mean nothing then.
    #[arg(long)]
    quick: bool,
}

impl Command {
    /// Measures.
    ///
    /// Ends with success also where goals are missed, and with failure where something could not be measured or a
    /// byte was wrong.
    ///
    /// # Errors
    /// When nothing can be measured.
    pub fn run(self) -> Result<ExitCode> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "measuring needs root, to mount and to drop the kernel's caches: run it as root"
        );
        // The mounts' processes detach themselves; as their reaper this process finds them again.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("failed to become the reaper of the mounts' processes")?;
        let here = std::env::current_exe().context("the path of this program is unknown")?;
        let here = here.parent().context("this program lies in no directory")?;
        let programs = Programs {
            millpond: self.millpond.clone().unwrap_or_else(|| here.join("millpond")),
            origin: here.join("millpond-origin"),
        };
        for program in [&programs.millpond, &programs.origin] {
            ensure!(
                program.is_file(),
                "there is no {}: build it first, in the same profile as this program",
                program.display()
            );
        }
        let scratch = Scratch::claim(self.dir.as_deref().unwrap_or(here), SCRATCH)?;
        clear_when_interrupted(scratch.removal())?;
        let sizes = if self.quick { Sizes::QUICK } else { Sizes::FULL };
        self.measure(Lab::new(programs, scratch, sizes)?)
    }

    fn measure(&self, mut lab: Lab) -> Result<ExitCode> {
        let wanted = if self.only.is_empty() {
            Figure::value_variants()
        } else {
            &self.only
        };
        let mut report = Report::new(self.quick);
        let mut failed = false;
        let begun = Instant::now();
        for &figure in wanted {
            complain(format_args!(
                "{:>4} s  {}",
                begun.elapsed().as_secs(),
                figure.name()
            ));
            match figure.measure(&mut lab) {
                Ok(rows) => report.add(&figure.name(), rows),
                Err(error) => {
                    failed = true;
                    complain(format_args!("error: {}: {error:#}", figure.name()));
                }
            }
            report.memory.clone_from(&lab.peaks);
            if let Some(file) = &self.json {
                report.write(file)?;
            }
        }
        drop(lab);
        complain(format_args!("{:>4} s  done", begun.elapsed().as_secs()));
        writeln!(std::io::stdout(), "{}", report.table()).context("failed to print the figures")?;
        if failed {
            bail!("some figures could not be measured: see above");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Clears up and ends this process on SIGINT and SIGTERM. The thread lives as long as the process.
fn clear_when_interrupted(clear: impl Fn() -> Result<()> + Send + 'static) -> Result<()> {
    /// As a shell names an end by SIGINT.
    const INTERRUPTED: i32 = 130;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to watch for signals")?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        let failed = "failed to watch for signals";
        (
            signal(SignalKind::interrupt()).context(failed)?,
            signal(SignalKind::terminate()).context(failed)?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        complain("interrupted: clearing up");
        if let Err(error) = clear() {
            complain(format_args!("{error:#}"));
        }
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}
