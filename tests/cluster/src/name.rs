//! The name of a cluster, which keeps clusters apart.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Error, ensure};

/// The longest name: names of cgroups and folders are derived from it.
const MAX_LENGTH: usize = 32;

/// A name of lower-case letters, digits and inner hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the folder of everything the cluster keeps, logs and nodes' disks included.
    pub fn state_dir(&self) -> PathBuf {
        PathBuf::from(format!("/tmp/{}", self.mark()))
    }

    /// Returns etcd's folder: it syncs on each write, which costs nothing in memory.
    pub(crate) fn etcd_dir(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/{}", self.mark()))
    }

    /// Returns the text that marks what belongs to the cluster: its bridge's alias, its authority's common name.
    pub(crate) fn mark(&self) -> String {
        format!("millpond-cluster-{}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=MAX_LENGTH).contains(&text.len())
                && text.bytes().all(is_allowed)
                && !text.starts_with('-')
                && !text.ends_with('-'),
            "the name '{text}' is not of the form [a-z0-9-], at most {MAX_LENGTH} characters"
        );
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_folders_cgroups_and_interfaces_can_be_called() {
        for good in ["a", "demo", "self-test-123-b", "0", &"x".repeat(32)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a_b", "../x", "a b", &"x".repeat(33)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
