//! What the API server was asked, by its own count.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::World;

/// Verbs that change nothing.
const READS: [&str; 4] = ["GET", "LIST", "WATCH", "CONNECT"];

/// What a cluster writes by itself at rest, without Millpond.
const OTHERS: [&str; 2] = ["leases", "nodes"];

/// Requests so far, by verb and resource.
#[derive(Debug)]
pub struct Requests(BTreeMap<(String, String), f64>);

/// Requests between two moments.
#[derive(Debug)]
pub struct Asked {
    /// All of them, of the whole cluster.
    pub all: f64,
    /// Those that change something, but what a cluster at rest writes by itself.
    pub writes: f64,
    /// Which writes these were, and how many of each.
    pub kinds: Vec<String>,
}

impl Requests {
    /// Asks the API server.
    ///
    /// # Errors
    /// It does not say.
    pub fn so_far(world: &World) -> Result<Self> {
        let text = world.kubectl().run(&["get", "--raw", "/metrics"])?;
        let mut found = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{"))
        {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value.to_owned())
            };
            let (_, value) = line.rsplit_once(' ').context("a metric has a value")?;
            let key = (
                label("verb").unwrap_or_default(),
                label("resource").unwrap_or_default(),
            );
            *found.entry(key).or_insert(0.0) += value.parse::<f64>()?;
        }
        Ok(Self(found))
    }

    /// What came after an earlier moment.
    pub fn since(&self, earlier: &Self) -> Asked {
        let mut asked = Asked {
            all: 0.0,
            writes: 0.0,
            kinds: Vec::new(),
        };
        for (key, count) in &self.0 {
            let (verb, resource) = key;
            let new = count - earlier.0.get(key).copied().unwrap_or(0.0);
            asked.all += new;
            if new > 0.0 && !READS.contains(&verb.as_str()) && !OTHERS.contains(&resource.as_str()) {
                asked.writes += new;
                asked.kinds.push(format!("{verb} {resource} {new}"));
            }
        }
        asked
    }
}
