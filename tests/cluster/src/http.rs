//! Plain requests to servers of the cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Client;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the status and body of a GET.
pub(crate) fn get(url: &str) -> Result<(u16, Vec<u8>)> {
    millpond_process::tls::install();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let request = async {
        let client = Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
        let answer = client.get(url).send().await?;
        let status = answer.status().as_u16();
        Ok::<_, reqwest::Error>((status, answer.bytes().await?.to_vec()))
    };
    runtime
        .block_on(request)
        .with_context(|| format!("failed to get {url}"))
}
