//! A real Prometheus as a process of the machine. It scrapes the `metrics` ports of Millpond's pods each second with the
//! labels of the chart's PodMonitors, and has the rules of `deploy/rules`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::cluster::Cluster;
use crate::http;
use crate::logs::tails;
use crate::tools::{own_program, tool, workspace};
use crate::wait::{POLL_INTERVAL, poll};

const PORT: u16 = 9_090;

/// It is ready in a second.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Prometheus<'a> {
    cluster: &'a Cluster,
}

/// A series that a query has found.
#[derive(Debug, Deserialize)]
pub struct Series {
    /// When, in seconds, and the value as Prometheus writes it.
    value: (f64, String),
}

/// What Prometheus answers.
#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    data: Value,
}

impl<'a> Prometheus<'a> {
    pub(crate) const fn of(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Starts it, if it does not run; returns its address when it is ready.
    ///
    /// # Errors
    /// It does not become ready: with the last lines of its log.
    pub fn start(self) -> Result<String> {
        let state = self.cluster.state();
        let (server, targets) = (state.process("prometheus"), state.process("prometheus-targets"));
        if server.pid().is_none() {
            let configuration = state.dir().join("prometheus.yaml");
            fs::write(&configuration, serde_saphyr::to_string(&self.configuration())?)?;
            fs::write(self.targets_file(), "[]")?;
            let mut discovery = own_program()?;
            discovery.args(["--name", self.cluster.name().as_str(), "prometheus-targets"]);
            targets.stop(Signal::TERM)?;
            targets.start(discovery)?;
            let mut command = Command::new(tool("prometheus"));
            command.args([
                format!("--config.file={}", configuration.display()),
                format!("--storage.tsdb.path={}", state.dir().join("prometheus").display()),
                format!("--web.listen-address={}:{PORT}", self.cluster.host_address()),
                "--log.level=warn".to_owned(),
            ]);
            server.start(command)?;
            let ready = format!("{}/-/ready", self.address());
            poll("Prometheus", START_TIMEOUT, POLL_INTERVAL, || {
                ensure!(server.pid().is_some(), "it has ended");
                Ok((http::get(&ready)?.0 == 200).then_some(()))
            })
            .with_context(|| {
                format!(
                    "failed to start Prometheus{}",
                    tails(std::slice::from_ref(&server))
                )
            })?;
        }
        Ok(self.address())
    }

    /// Stops it.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        for process in ["prometheus", "prometheus-targets"] {
            self.cluster.state().process(process).stop(Signal::TERM)?;
        }
        Ok(())
    }

    /// Returns the series that an expression has now.
    ///
    /// # Errors
    /// It does not answer, or refuses the expression: with its reason.
    pub fn query(self, expression: &str) -> Result<Vec<Series>> {
        let url = format!("{}/api/v1/query", self.address());
        let url = Url::parse_with_params(&url, [("query", expression)])?;
        let data = get(url.as_str()).with_context(|| format!("the query {expression}"))?;
        let series = data.get("result").cloned().unwrap_or_default();
        Ok(serde_json::from_value(series)?)
    }

    /// Returns the value of the first series of an expression; `None`: it has no series.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn value(self, expression: &str) -> Result<Option<f64>> {
        self.query(expression)?.first().map(Series::value).transpose()
    }

    /// Returns the rules that it has loaded, as its API describes them.
    ///
    /// # Errors
    /// It does not answer.
    pub fn rules(self) -> Result<Vec<Value>> {
        let data = get(&format!("{}/api/v1/rules", self.address()))?;
        let list = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned();
        let groups = list(&data, "groups").unwrap_or_default();
        Ok(groups
            .iter()
            .filter_map(|group| list(group, "rules"))
            .flatten()
            .collect())
    }

    /// Returns the file of the pods to scrape, which Prometheus watches.
    pub(crate) fn targets_file(self) -> PathBuf {
        self.cluster.state().dir().join("prometheus-targets.json")
    }

    fn address(self) -> String {
        format!("http://{}:{PORT}", self.cluster.host_address())
    }

    fn configuration(self) -> Value {
        json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [workspace().join("deploy/rules/millpond.yaml")],
            "scrape_configs": [{
                "job_name": "millpond",
                "honor_labels": true,
                "file_sd_configs": [{"files": [self.targets_file()]}],
            }],
        })
    }
}

impl Series {
    /// Returns its value.
    ///
    /// # Errors
    /// It is no number.
    pub fn value(&self) -> Result<f64> {
        let (_, value) = &self.value;
        value.parse().with_context(|| format!("{value} is no number"))
    }
}

fn get(url: &str) -> Result<Value> {
    let (_, body) = http::get(url)?;
    let answer: Answer =
        serde_json::from_slice(&body).context("Prometheus answered other JSON than expected")?;
    ensure!(answer.status == "success", "was refused: {}", answer.error);
    Ok(answer.data)
}
