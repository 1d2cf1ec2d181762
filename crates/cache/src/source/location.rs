//! The location of a source: the parsed URL.
//!
//! Bucket URLs are parsed by hand: a key may hold `?`, `#` and `%` literally, and a URL parser would make `a/../b`
//! into `b`. Only `http(s)://` and `file://` are real URLs.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::SourceError;
use super::page::path_of;

/// The kind of a source, and its location in that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceLocation {
    S3 {
        bucket: String,
    },
    Gcs {
        bucket: String,
    },
    Azure {
        container: String,
        account: Option<String>,
    },
    /// The server's root, with a `/` at its end.
    Http {
        root: Url,
    },
    File {
        directory: PathBuf,
    },
}

/// A source's URL.
///
/// Everything below it belongs to the source: `s3://bucket/train` is the directory `train`, never `training`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUrl {
    pub(crate) location: SourceLocation,
    /// Empty, or ends with `/`.
    pub(crate) prefix: String,
}

impl SourceUrl {
    /// Parses `url`.
    ///
    /// # Errors
    /// Names what is wrong with it and how to correct it.
    pub fn parse(url: &str) -> Result<Self, SourceError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(invalid(
                format!("{url:?} is not a URL"),
                "write s3://BUCKET/PREFIX, gs://, az://, http(s):// or file:///DIRECTORY",
            ));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => {
                let (bucket, prefix) = bucket_and_prefix(rest, "s3://BUCKET/PREFIX")?;
                Ok(Self {
                    location: SourceLocation::S3 { bucket },
                    prefix,
                })
            }
            "gs" => {
                let (bucket, prefix) = bucket_and_prefix(rest, "gs://BUCKET/PREFIX")?;
                Ok(Self {
                    location: SourceLocation::Gcs { bucket },
                    prefix,
                })
            }
            "az" | "azure" | "adl" | "abfs" | "abfss" => azure(rest),
            "http" | "https" => http(url),
            "file" => file(rest),
            other => Err(invalid(
                format!("sources of the kind {other:?} are not known"),
                "use s3, gs, az, abfs, http, https or file",
            )),
        }
    }
}

impl fmt::Display for SourceUrl {
    /// Canonical: equal locations are spelled equally, and end with `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = &self.prefix;
        match &self.location {
            SourceLocation::S3 { bucket } => write!(f, "s3://{bucket}/{prefix}"),
            SourceLocation::Gcs { bucket } => write!(f, "gs://{bucket}/{prefix}"),
            SourceLocation::Azure {
                container,
                account: None,
            } => write!(f, "az://{container}/{prefix}"),
            SourceLocation::Azure {
                container,
                account: Some(account),
            } => {
                write!(f, "abfs://{container}@{account}.dfs.core.windows.net/{prefix}")
            }
            SourceLocation::Http { root } => write!(f, "{root}{prefix}"),
            SourceLocation::File { directory } => {
                let directory = directory.to_string_lossy();
                write!(f, "file://{}/", directory.trim_end_matches('/'))
            }
        }
    }
}

fn invalid(problem: String, fix: &str) -> SourceError {
    SourceError::Invalid {
        field: "url".to_owned(),
        problem,
        fix: fix.to_owned(),
    }
}

fn bucket_and_prefix(rest: &str, form: &str) -> Result<(String, String), SourceError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') || bucket.contains(':') {
        return Err(invalid(
            "it holds credentials or a port".to_owned(),
            "give credentials by the environment or as options, and another server as the endpoint",
        ));
    }
    Ok((name(bucket, form)?, checked_prefix(prefix)?))
}

/// Checks a bucket or container: what all providers allow, and nothing that has a meaning in a URL.
fn name(name: &str, form: &str) -> Result<String, SourceError> {
    if name.is_empty() {
        return Err(invalid(
            "the bucket is missing".to_owned(),
            &format!("write {form}"),
        ));
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'$');
    if name.len() > 255 || name.starts_with('.') || !name.bytes().all(good) {
        return Err(invalid(
            format!("{name:?} cannot be a bucket"),
            "a bucket's name holds letters, digits, '-', '_' and '.' only",
        ));
    }
    Ok(name.to_owned())
}

/// Returns the prefix with its `/`, if keys below it can be requested.
fn checked_prefix(prefix: &str) -> Result<String, SourceError> {
    let trimmed = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() {
        return Ok(String::new());
    }
    if trimmed.is_empty() || path_of(trimmed).is_none() {
        return Err(invalid(
            format!("the prefix {prefix:?} cannot be requested"),
            "it must not hold empty parts, '.', '..' or control characters",
        ));
    }
    Ok(format!("{trimmed}/"))
}

fn azure(rest: &str) -> Result<SourceUrl, SourceError> {
    let form = "az://CONTAINER/PREFIX or abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX";
    let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = checked_prefix(prefix)?;
    let (container, account) = match authority.split_once('@') {
        None => (name(authority, form)?, None),
        Some((container, host)) => {
            let account = host
                .strip_suffix(".dfs.core.windows.net")
                .or_else(|| host.strip_suffix(".blob.core.windows.net"))
                .ok_or_else(|| {
                    invalid(
                        format!("{host:?} is not a storage account"),
                        &format!("write {form}"),
                    )
                })?;
            (name(container, form)?, Some(name(account, form)?))
        }
    };
    Ok(SourceUrl {
        location: SourceLocation::Azure { container, account },
        prefix,
    })
}

fn http(url: &str) -> Result<SourceUrl, SourceError> {
    let mut parsed = Url::parse(url).map_err(|error| {
        invalid(
            format!("{url:?} is not a URL: {error}"),
            "write https://HOST/DIRECTORY/",
        )
    })?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid(
            "it holds credentials".to_owned(),
            "HTTP sources are read without credentials; put a proxy that adds them before the server",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(invalid(
            "it holds a query or a fragment".to_owned(),
            "name a directory of the server; signed URLs cannot be listed",
        ));
    }
    let path = percent_decode_str(parsed.path())
        .decode_utf8()
        .map_err(|_not_text| invalid("its path is not UTF-8".to_owned(), "name a directory in UTF-8"))?
        .into_owned();
    let prefix = checked_prefix(path.strip_prefix('/').unwrap_or(&path))?;
    parsed.set_path("/");
    Ok(SourceUrl {
        location: SourceLocation::Http { root: parsed },
        prefix,
    })
}

fn file(rest: &str) -> Result<SourceUrl, SourceError> {
    let fix = "write file:///DIRECTORY with an absolute path";
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(invalid(format!("{rest:?} names a host or a relative path"), fix));
    }
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_not_text| invalid("its path is not UTF-8".to_owned(), fix))?
        .into_owned();
    if path.contains('\0')
        || Path::new(&path)
            .components()
            .any(|part| part == Component::ParentDir)
    {
        return Err(invalid(format!("the path {path:?} holds '..' or a NUL"), fix));
    }
    // Components, so that doubled and trailing slashes do not change the identity.
    let directory = Path::new(&path).components().collect();
    Ok(SourceUrl {
        location: SourceLocation::File { directory },
        prefix: String::new(),
    })
}

#[cfg(test)]
mod tests;
