//! What a process of Millpond serves over HTTP: `/metrics`, `/healthz`.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use origin::{Client, Reply};
use prometheus_parse::{Scrape, Value};

/// After this a server does not answer. Only ever reached by a defect.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The counters that a hit rate is made of.
const READ_BYTES: &str = "millpond_read_bytes_total";

/// A free address of the loopback.
///
/// # Errors
/// There is none.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a free port")?;
    Ok(listener.local_addr()?.to_string())
}

/// The response of an address to a GET of this path.
///
/// # Errors
/// There is none.
pub fn get(address: &str, path: &str) -> Result<Reply> {
    let failed = || format!("failed to get http://{address}{path}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(failed)?;
    runtime.block_on(async {
        let client = Client::new(format!("http://{address}"), None);
        let request = client.send(Method::GET, path, &[], Vec::new());
        tokio::time::timeout(TIMEOUT, request)
            .await
            .with_context(failed)?
            .with_context(failed)
    })
}

/// The counters and gauges at one moment.
#[derive(Debug)]
pub struct Metrics {
    text: String,
    scrape: Scrape,
}

impl Metrics {
    /// Reads those that are served at this address.
    ///
    /// # Errors
    /// None are.
    pub fn read(address: &str) -> Result<Self> {
        let reply = get(address, "/metrics")?;
        ensure!(
            reply.status.is_success(),
            "http://{address}/metrics: {}",
            reply.status
        );
        Self::parse(String::from_utf8_lossy(&reply.body).into_owned())
    }

    fn parse(text: String) -> Result<Self> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).context("failed to parse the metrics")?;
        Ok(Self { text, scrape })
    }

    /// The lines of the metrics that have this name.
    pub fn lines(&self, name: &str) -> Vec<&str> {
        let lines = self.text.lines();
        lines.filter(|line| line.starts_with(name)).collect()
    }

    /// The lines of the bytes read, by where they were served from.
    pub fn read_bytes(&self) -> Vec<&str> {
        self.lines(READ_BYTES)
    }

    /// The sum over the metrics of this name that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.scrape.samples.iter().filter(|sample| {
            let has = |(label, value): &(&str, &str)| sample.labels.get(label) == Some(value);
            sample.metric == name && labels.iter().all(has)
        });
        samples
            .map(|sample| match sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
                Value::Histogram(_) | Value::Summary(_) => 0.0,
            })
            .sum()
    }

    /// The part of the bytes read that was not fetched from the source; `None` where nothing was read.
    pub fn hit_rate(&self) -> Option<f64> {
        let of = |place: &str| self.sum(READ_BYTES, &[("served_from", place)]);
        let hits = of("local") + of("peer");
        let all = hits + of("origin");
        (all > 0.0).then(|| hits / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_rate_is_the_part_that_was_not_fetched_from_the_source() {
        let line = |place: &str, value: u64| {
            format!("{READ_BYTES}{{dataset=\"d\",namespace=\"\",served_from=\"{place}\"}} {value}\n")
        };
        let text = [line("local", 60), line("peer", 15), line("origin", 25)].concat();
        let metrics = Metrics::parse(format!("# TYPE {READ_BYTES} counter\n{text}")).expect("it parses");
        assert_eq!(metrics.hit_rate(), Some(0.75));
        assert_eq!(metrics.read_bytes().len(), 3);
        let nothing = Metrics::parse(String::new()).expect("it parses");
        assert_eq!(nothing.hit_rate(), None);
    }
}
