//! The name of a node: `n1`, `n2`, ...

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, ensure};

/// The most nodes of a cluster.
pub const MAX_NODES: u8 = 9;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeName(u8);

impl NodeName {
    /// Returns the names of a cluster's first nodes, at most [`MAX_NODES`].
    pub fn first(count: u8) -> impl Iterator<Item = Self> {
        (1..=count.min(MAX_NODES)).map(Self)
    }

    /// Returns the number in the name, from 1.
    pub const fn index(self) -> u8 {
        self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl FromStr for NodeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let index = text.strip_prefix('n').and_then(|index| index.parse().ok());
        let index = index.with_context(|| format!("'{text}' is no node: nodes are n1, n2, ..."))?;
        ensure!(
            (1..=MAX_NODES).contains(&index) && text.len() == 2,
            "'{text}' is no node: nodes are n1 to n{MAX_NODES}"
        );
        Ok(Self(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_n_and_a_digit() {
        assert_eq!("n3".parse::<NodeName>().unwrap().index(), 3);
        for bad in ["", "n", "n0", "n10", "n01", "3", "n+1", "node"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
        let names: Vec<_> = NodeName::first(2).map(|node| node.to_string()).collect();
        assert_eq!(names, ["n1", "n2"]);
    }
}
