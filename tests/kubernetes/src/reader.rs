//! A pod that reads every file of a Dataset again and again and compares each with its checksum.

use anyhow::{Result, ensure};

use crate::cluster::given;
use crate::namespace::GUARD;
use crate::world::NODE_LABEL;
use crate::{Bucket, Namespace, eventually};

/// See the module's documentation.
#[derive(Debug)]
pub struct Reader<'a> {
    namespace: &'a Namespace,
    name: String,
}

/// Each pass is a line: what is wrong with a file is one too. `sha256sum -s` names nothing, so the status is what counts.
const SCRIPT: &str = "pass=0; while :; do if sha256sum -c /sums/sums >/tmp/said 2>&1; then pass=$((pass+1)); echo pass $pass; \
                      else echo BROKEN; grep -v ': OK' /tmp/said; fi; sleep 0.2; done";

impl<'a> Reader<'a> {
    /// Starts a pod on `node` (empty: any) that reads the files of `sums` with `volume` mounted at `/data`.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn start(namespace: &'a Namespace, name: &str, node: &str, volume: &str, sums: &str) -> Result<Self> {
        let lines: String = sums.lines().map(|line| format!("    {line}\n")).collect();
        let selector = match node {
            "" => String::new(),
            node => format!("  nodeSelector: {{{NODE_LABEL}: {node}}}\n"),
        };
        let image = given("MILLPOND_TESTS_BUSYBOX").unwrap_or_else(|| "millpond.test/busybox:1".to_owned());
        namespace.apply(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}-sums}}\ndata:\n  sums: |\n{lines}---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{selector}  terminationGracePeriodSeconds: 0\n  \
             containers:\n  - name: reader\n    image: {image}\n    imagePullPolicy: IfNotPresent\n    \
             command: [/bin/sh, -c, \"{SCRIPT}\"]\n    volumeMounts:\n    - {{name: data, mountPath: /data}}\n    \
             - {{name: sums, mountPath: /sums}}\n  volumes:\n  - name: data\n    {volume}\n  - name: sums\n    \
             configMap: {{name: {name}-sums}}\n"
        ))?;
        Ok(Self {
            namespace,
            name: name.to_owned(),
        })
    }

    /// Starts a pod on `node` that reads all of a bucket by the claim of `dataset`.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn of(
        namespace: &'a Namespace,
        name: &str,
        node: &str,
        dataset: &str,
        bucket: &Bucket<'_>,
    ) -> Result<Self> {
        Self::start(
            namespace,
            name,
            node,
            &Self::claim(dataset),
            &bucket.sums("/data"),
        )
    }

    /// One that runs already.
    pub fn running(namespace: &'a Namespace, name: &str) -> Self {
        Self {
            namespace,
            name: name.to_owned(),
        }
    }

    /// A volume that names a Dataset's claim.
    pub fn claim(dataset: &str) -> String {
        format!("persistentVolumeClaim: {{claimName: {dataset}}}")
    }

    /// A volume that names a Dataset without a claim.
    pub fn inline(dataset: &str) -> String {
        format!("csi: {{driver: csi.millpond.io, readOnly: true, volumeAttributes: {{dataset: {dataset}}}}}")
    }

    /// Its pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for `passes` more passes, every byte right in all of them so far.
    ///
    /// # Errors
    /// A byte was wrong, a read failed, or it stops reading.
    pub fn passes(&self, passes: usize) -> Result<()> {
        let before = self
            .said()
            .map(|said| count(&said))
            .or_else(|_absent| self.wait_running())?;
        eventually(&format!("{} to read {passes} times", self.name), GUARD, || {
            let said = self.said()?;
            ensure!(!said.contains("BROKEN"), "{}: {said}", self.name);
            Ok((count(&said) >= before + passes).then_some(()))
        })
    }

    /// Waits until its pod runs, which has not read anything by then.
    fn wait_running(&self) -> Result<usize> {
        let (pod, running) = (
            format!("pod/{}", self.name),
            "--for=jsonpath={.status.phase}=Running",
        );
        eventually(&format!("{} to run", self.name), GUARD, || {
            self.namespace.run(&["wait", &pod, running, "--timeout=30s"])?;
            Ok(Some(0))
        })
    }

    /// Runs a command in its pod.
    ///
    /// # Errors
    /// It fails.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["exec", self.name.as_str(), "--"];
        all.extend_from_slice(words);
        self.namespace.run(&all)
    }

    /// Everything it has said.
    ///
    /// # Errors
    /// It does not run yet.
    pub fn said(&self) -> Result<String> {
        self.namespace.run(&["logs", &self.name])
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not go.
    pub fn end(self) -> Result<()> {
        self.namespace
            .run(&["delete", "pod", &self.name, "--wait=true"])
            .map(drop)
    }
}

fn count(said: &str) -> usize {
    said.lines().filter(|line| line.starts_with("pass ")).count()
}
