//! What the mount says of itself at `/metrics`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long the mount may take to answer. Only ever reached by a defect.
const PATIENCE: Duration = Duration::from_secs(30);

/// The counters that a hit rate is made of.
const READS: &str = "millpond_read_bytes_total";

/// A free address of the loopback.
pub(crate) fn free_address() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a free port")?;
    Ok(listener.local_addr()?.to_string())
}

/// The lines of `/metrics` that count bytes read.
pub(crate) fn reads(address: &str) -> Result<Vec<String>> {
    let failed = || format!("failed to ask http://{address}/metrics");
    let mut stream = TcpStream::connect(address).with_context(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(failed)?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .with_context(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(failed)?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{}: {}", failed(), head.lines().next().unwrap_or_default());
    }
    Ok(body
        .lines()
        .filter(|line| line.starts_with(READS))
        .map(str::to_owned)
        .collect())
}

/// The part of bytes read that the source was not asked for.
pub(crate) fn hit_rate(reads: &[String]) -> Option<f64> {
    let of = |place: &str| -> f64 {
        let label = format!("served_from=\"{place}\"");
        let values = reads.iter().filter(|line| line.contains(&label));
        values
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    let here = of("local") + of("peer");
    let all = here + of("origin");
    (all > 0.0).then(|| here / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_rate_is_what_the_source_was_not_asked_for() {
        let line = |place: &str, value: u64| {
            format!("{READS}{{dataset=\"d\",namespace=\"\",served_from=\"{place}\"}} {value}")
        };
        let reads = [line("local", 60), line("peer", 15), line("origin", 25)];
        assert_eq!(hit_rate(&reads), Some(0.75));
        assert_eq!(hit_rate(&[]), None);
    }
}
