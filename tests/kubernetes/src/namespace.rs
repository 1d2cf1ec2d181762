//! A namespace of a case's own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Dataset, Kubectl, condition_of, eventually};

/// What everything must come to within; a guard, never a measure.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

/// Of one watch by kubectl, which is shorter than any of its calls may be.
const WAIT_TIMEOUT: &str = "--timeout=30s";

/// A namespace; its objects go when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    kubectl: Kubectl,
    name: String,
}

impl Namespace {
    /// Makes it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn make(kubectl: &Kubectl, name: &str) -> Result<Self> {
        // One of the run before may still be going.
        let name = format!("{name}-{}", std::process::id());
        kubectl.run(&["create", "namespace", &name])?;
        let namespace = Self {
            kubectl: kubectl.clone(),
            name,
        };
        eventually("the default ServiceAccount", GUARD, || {
            namespace.run(&["get", "serviceaccount", "default"]).map(Some)
        })?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in it.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        self.kubectl.run(&self.words(words))
    }

    /// Applies objects in it.
    ///
    /// # Errors
    /// The API server refuses them.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl
            .run_with(&self.words(&["apply", "-f", "-"]), manifest)
            .map(drop)
    }

    /// An object or list in it.
    ///
    /// # Errors
    /// It is not there.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        self.kubectl.json(&self.words(words))
    }

    /// Applies a Dataset, and waits until it is ready.
    ///
    /// # Errors
    /// The API server refuses it, or it does not become ready.
    pub fn ready(&self, dataset: &Dataset) -> Result<()> {
        self.apply(&dataset.yaml())?;
        self.wait(&format!("dataset/{}", dataset.name()), "Ready", "True")
            .map(drop)
    }

    /// Waits until a condition of an object has a status; gives its reason and message.
    ///
    /// # Errors
    /// It does not: with what it says instead.
    pub fn wait(&self, object: &str, kind: &str, status: &str) -> Result<(String, String)> {
        let what = format!("{object} to be {kind}={status}");
        let condition = format!("--for=condition={kind}={status}");
        eventually(&what, GUARD, || {
            let object_now = match self.run(&["wait", object, &condition, WAIT_TIMEOUT, "-o", "json"]) {
                Ok(text) => serde_json::from_str(&text)?,
                Err(_timeout_or_absent) => self.json(&[object])?,
            };
            let found = condition_of(&object_now, kind);
            let (now, reason, message) =
                found.with_context(|| format!("{object} has no condition {kind}"))?;
            ensure!(now == status, "{object} is {kind}={now}, {reason}: {message}");
            Ok(Some((reason, message)))
        })
    }

    /// Waits until an event of a reason is there for an object.
    ///
    /// # Errors
    /// There is none.
    pub fn event(&self, object: &str, reason: &str) -> Result<String> {
        let (_, name) = object.split_once('/').context("an object is kind/name")?;
        let selector = format!("involvedObject.name={name},reason={reason}");
        eventually(&format!("an event {reason} of {object}"), GUARD, || {
            let events = self.run(&[
                "get",
                "events",
                "--field-selector",
                &selector,
                "-o",
                "jsonpath={.items[*].message}",
            ])?;
            Ok((!events.is_empty()).then_some(events))
        })
    }

    /// Waits until an object is deleted.
    ///
    /// # Errors
    /// It stays.
    pub fn gone(&self, object: &str) -> Result<()> {
        eventually(&format!("{object} to be deleted"), GUARD, || {
            self.run(&["wait", object, "--for=delete", WAIT_TIMEOUT])?;
            let found = self.run(&["get", object, "--ignore-not-found", "-o", "name"])?;
            ensure!(found.is_empty(), "{object} is still there");
            Ok(Some(()))
        })
    }

    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend_from_slice(words);
        all
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A Dataset goes when no pod uses it any more, so these go first; what does not go is seen by the next case.
        for words in [
            [
                "delete",
                "pods",
                "--all",
                "--grace-period=0",
                "--force",
                "--wait=false",
            ]
            .as_slice(),
            &["delete", "dataloads,datasets", "--all", "--wait=false"],
        ] {
            if let Err(error) = self.run(words) {
                eprintln!("{}: {error:#}", self.name);
            }
        }
        let deleted = self
            .kubectl
            .run(&["delete", "namespace", &self.name, "--wait=false"]);
        if let Err(error) = deleted {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}
