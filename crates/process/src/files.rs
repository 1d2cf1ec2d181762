//! Limit of a process's open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Raises this process's limit of open files to its hard limit: each Dataset needs some ten.
///
/// Container runtimes and systemd start processes with a soft limit of 1,024, for the sake of programs that use `select`.
/// If the kernel refuses, the limit stays, with a warning in the log.
pub fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, ?current, ?maximum, "failed to raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_becomes_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let lower = Rlimit {
            current: Some(maximum.unwrap_or(1 << 20) - 1),
            maximum,
        };
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_file_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
