//! Pods that do one thing and say what it took, by the machine's one clock.

use std::time::Duration;

use anyhow::{Context, Result};
use kubernetes_tests::{Namespace, eventually};

/// No pod takes longer; a guard, never a measure.
const GUARD: Duration = Duration::from_secs(300);

/// Seconds since the machine started, to the hundredth: the same in every pod.
pub(super) fn now() -> Result<f64> {
    seconds(&std::fs::read_to_string("/proc/uptime")?)
}

/// The first word of `/proc/uptime`.
pub(super) fn seconds(text: &str) -> Result<f64> {
    let first = text.split_whitespace().next().context("the clock says nothing")?;
    first.parse().with_context(|| format!("{first} is no time"))
}

/// A pod on the first node that runs a shell script with volumes at `/NAME`, and ends.
pub(super) struct Script<'a> {
    pub(super) name: &'a str,
    pub(super) script: &'a str,
    /// Names, and what they are in YAML's flow style.
    pub(super) volumes: &'a [(String, String)],
}

impl Script<'_> {
    /// Starts it.
    pub(super) fn start(&self, namespace: &Namespace) -> Result<()> {
        let Self {
            name,
            script,
            volumes,
        } = self;
        let script = serde_json::to_string(script)?;
        let mounts: String = volumes
            .iter()
            .map(|(name, _)| format!("    - {{name: {name}, mountPath: /{name}}}\n"))
            .collect();
        let volumes: String = volumes
            .iter()
            .map(|(name, source)| format!("  - {{name: {name}, {source}}}\n"))
            .collect();
        namespace.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
             terminationGracePeriodSeconds: 0\n  nodeSelector: {{millpond.test/node: n1}}\n  containers:\n  - name: script\n    \
             image: millpond.test/busybox:1\n    imagePullPolicy: IfNotPresent\n    command: [/bin/sh, -c, {script}]\n    \
             volumeMounts:\n{mounts}  volumes:\n{volumes}"
        ))
    }

    /// Waits for its end, and gives what it said. The pod is taken away.
    pub(super) fn said(&self, namespace: &Namespace) -> Result<String> {
        eventually(&format!("the pod {} to end", self.name), GUARD, || {
            let phase = namespace.run(&["get", "pod", self.name, "-o", "jsonpath={.status.phase}"])?;
            anyhow::ensure!(phase != "Failed", "{}", namespace.run(&["logs", self.name])?);
            Ok((phase == "Succeeded").then_some(()))
        })?;
        let said = namespace.run(&["logs", self.name])?;
        namespace.run(&["delete", "pod", self.name, "--wait=true"])?;
        Ok(said)
    }
}

/// A volume of a Dataset.
pub(super) fn claim(dataset: &str) -> String {
    format!("persistentVolumeClaim: {{claimName: {dataset}}}")
}

/// A directory of the node.
pub(super) fn host(path: &str) -> String {
    format!("hostPath: {{path: {path}, type: DirectoryOrCreate}}")
}
