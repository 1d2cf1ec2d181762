//! The objects of the cases, as YAML.

use serde_json::Value;

use crate::{Bucket, S3};

/// A source of a Dataset.
#[derive(Clone, Debug)]
pub struct Mount {
    bucket: String,
    endpoint: String,
    secret: String,
    name: Option<String>,
    more: String,
}

impl Mount {
    /// A bucket of `s3`, read with the Secret `secret`.
    pub fn new(s3: &S3, bucket: &str, secret: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            endpoint: s3.url(),
            secret: secret.to_owned(),
            name: None,
            more: String::new(),
        }
    }

    /// Shown at `/<name>`.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// More of its fields, in YAML's flow style.
    pub fn with(mut self, field: &str) -> Self {
        self.more.push_str(", ");
        self.more.push_str(field);
        self
    }

    fn yaml(&self) -> String {
        let Self {
            bucket,
            endpoint,
            secret,
            name,
            more,
        } = self;
        let name = name
            .as_ref()
            .map(|name| format!(", name: {name}"))
            .unwrap_or_default();
        format!(
            "{{mountPoint: \"s3://{bucket}\", options: {{endpoint: \"{endpoint}\", region: us-east-1, allow_http: \"true\"}}, \
             secretRef: {{name: {secret}}}{name}{more}}}"
        )
    }
}

/// A Dataset.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    mounts: Vec<Mount>,
    more: Vec<String>,
}

impl Dataset {
    /// A Dataset of one source.
    pub fn new(name: &str, mount: Mount) -> Self {
        Self {
            name: name.to_owned(),
            mounts: vec![mount],
            more: Vec::new(),
        }
    }

    /// A Dataset of a whole bucket, read with the Secret `source`.
    pub fn of(name: &str, bucket: &Bucket<'_>) -> Self {
        Self::new(name, Mount::new(bucket.s3(), &bucket.name, "source"))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One more source.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// One more field of its spec.
    pub fn with(mut self, field: &str) -> Self {
        self.more.push(field.to_owned());
        self
    }

    /// The object.
    pub fn yaml(&self) -> String {
        let mounts: String = self
            .mounts
            .iter()
            .map(|mount| format!("  - {}\n", mount.yaml()))
            .collect();
        let more: String = self.more.iter().map(|field| format!("  {field}\n")).collect();
        format!(
            "apiVersion: millpond.io/v1alpha1\nkind: Dataset\nmetadata: {{name: {}}}\nspec:\n  mounts:\n{mounts}{more}---\n",
            self.name
        )
    }
}

/// A condition of an object: its status, reason and message.
pub fn condition_of(object: &Value, kind: &str) -> Option<(String, String, String)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition.get("type").is_some_and(|found| found == kind))?;
    let text = |field: &str| {
        found
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Some((text("status"), text("reason"), text("message")))
}
