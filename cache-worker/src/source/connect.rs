//! Making object_store's clients out of what a person wrote.
//!
//! Settings are laid over each other: Millpond's own timeouts, the AWS profile, the environment, the options,
//! and last what the URL says. Our retries, deadlines and hedges are in `fetch`: object_store's own are off, as
//! is its time limit over a whole body, which would cut every large object on a slow line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::page::Dialect;
use super::place::{Place, SourceUrl};
use super::remote::{Lister, Remote};
use super::wire::Connector;
use super::{Environment, SourceError, SourceOptions};

/// A server that does not take a connection in this time is not going to.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest pause within one answer.
const READ_IDLE: Duration = Duration::from_secs(10);

/// Servers close idle connections after some 20 s (S3) to some minutes.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// As many as requests are at the source at once, so that many small GETs never wait for a handshake.
const POOL_PER_HOST: usize = 256;

/// Opens a source that is asked over HTTP.
pub(super) fn connect(
    url: &SourceUrl,
    options: &SourceOptions,
    environment: &Environment,
) -> Result<Remote, SourceError> {
    // reqwest is built without a crypto provider of its own and panics where none was installed.
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match &url.place {
        Place::S3 { bucket } => s3(bucket, options, environment),
        Place::Gcs { bucket } => gcs(bucket, options, environment),
        Place::Azure { container, account } => azure(container, account.as_deref(), options, environment),
        Place::Http { root } => http(root, options),
        Place::File { .. } => Err(SourceError::Unavailable {
            source_id: url.to_string(),
            reason: "directories are not asked over HTTP".to_owned(),
        }),
    }
}

fn client(options: &SourceOptions) -> ClientOptions {
    let plain = options
        .endpoint
        .as_deref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT)
        .with_read_timeout(READ_IDLE)
        .with_timeout_disabled()
        .with_pool_idle_timeout(POOL_IDLE)
        .with_pool_max_idle_per_host(POOL_PER_HOST)
        .with_http1_only()
        .with_config(
            ClientConfigKey::UserAgent,
            concat!("millpond/", env!("CARGO_PKG_VERSION")),
        )
}

fn no_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: CONNECT,
    }
}

fn s3(bucket: &str, options: &SourceOptions, environment: &Environment) -> Result<Remote, SourceError> {
    let mut own = options.options.clone();
    let wanted = own.remove("aws_profile");
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client(options))
        .with_retry(no_retries())
        .with_http_connector(Connector);
    let keys: Vec<(AmazonS3ConfigKey, String)> = known("s3", &own)?;
    let by_environment: Vec<_> = environment
        .starting_with("AWS_")
        .filter_map(|(name, value)| Some((AmazonS3ConfigKey::from_str(&name).ok()?, value.to_owned())))
        .collect();
    let given = |key: AmazonS3ConfigKey| {
        keys.iter()
            .chain(&by_environment)
            .any(|(known_key, _)| *known_key == key)
    };
    let web_identity = given(AmazonS3ConfigKey::WebIdentityTokenFile) && given(AmazonS3ConfigKey::RoleArn);
    let other_way = options.anonymous || given(AmazonS3ConfigKey::AccessKeyId) || web_identity;
    if wanted.is_some() || !other_way {
        for (name, value) in environment.aws_profile(wanted.as_deref())? {
            if let Ok(key) = AmazonS3ConfigKey::from_str(&name) {
                builder = builder.with_config(key, value);
            }
        }
    }
    for (key, value) in by_environment.into_iter().chain(keys) {
        // A profile that was asked for by an option wins over keys of the environment.
        let credential = matches!(
            key,
            AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey | AmazonS3ConfigKey::Token
        );
        if !(credential && wanted.is_some()) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, checked_endpoint(endpoint)?);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if options.anonymous {
        builder = builder.with_skip_signature(true);
    }
    let store = builder
        .with_bucket_name(bucket)
        .build()
        .map_err(|error| refused(&error))?;
    Ok(paginated(Arc::new(store), Dialect::S3))
}

fn gcs(bucket: &str, options: &SourceOptions, environment: &Environment) -> Result<Remote, SourceError> {
    no_region(options, "gs")?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client(options))
        .with_retry(no_retries())
        .with_http_connector(Connector);
    if let Some(path) = environment.get("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    for (name, value) in environment.starting_with("GOOGLE_") {
        if let Ok(key) = GoogleConfigKey::from_str(&name) {
            builder = builder.with_config(key, value);
        }
    }
    for (key, value) in known::<GoogleConfigKey>("gs", &options.options)? {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, checked_endpoint(endpoint)?);
    }
    if options.anonymous {
        builder = builder.with_skip_signature(true);
    }
    let store = builder
        .with_bucket_name(bucket)
        .build()
        .map_err(|error| refused(&error))?;
    Ok(paginated(Arc::new(store), Dialect::S3))
}

fn azure(
    container: &str,
    account: Option<&str>,
    options: &SourceOptions,
    environment: &Environment,
) -> Result<Remote, SourceError> {
    no_region(options, "az")?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(client(options))
        .with_retry(no_retries())
        .with_http_connector(Connector);
    for (name, value) in environment.starting_with("AZURE_") {
        if let Ok(key) = AzureConfigKey::from_str(&name) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = environment.get("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    for (key, value) in known::<AzureConfigKey>("az", &options.options)? {
        builder = builder.with_config(key, value);
    }
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(checked_endpoint(endpoint)?);
    }
    if options.anonymous {
        builder = builder.with_skip_signature(true);
    }
    let store = builder
        .with_container_name(container)
        .build()
        .map_err(|error| refused(&error))?;
    Ok(paginated(Arc::new(store), Dialect::Azure))
}

fn http(root: &url::Url, options: &SourceOptions) -> Result<Remote, SourceError> {
    no_region(options, "http")?;
    if options.endpoint.is_some() {
        return Err(SourceError::Invalid {
            field: "endpoint".to_owned(),
            problem: "an HTTP source has no other endpoint than its URL".to_owned(),
            fix: "remove it".to_owned(),
        });
    }
    let mut client = client(options).with_allow_http(root.scheme() == "http");
    for (key, value) in known::<ClientConfigKey>("http", &options.options)? {
        client = client.with_config(key, value);
    }
    let store = HttpBuilder::new()
        .with_url(root.as_str())
        .with_client_options(client)
        .with_retry(no_retries())
        .with_http_connector(Connector)
        .build()
        .map_err(|error| refused(&error))?;
    Ok(Remote {
        store: Arc::new(store),
        lister: Lister::WebDav,
        wired: true,
    })
}

fn paginated<S: ObjectStore + PaginatedListStore>(store: Arc<S>, dialect: Dialect) -> Remote {
    let pages: Arc<dyn PaginatedListStore> = Arc::<S>::clone(&store);
    Remote {
        store,
        lister: Lister::Pages(pages, dialect),
        wired: true,
    }
}

/// The options under the provider's own type; one that it does not know is an error.
fn known<K: FromStr>(
    kind: &str,
    options: &BTreeMap<String, String>,
) -> Result<Vec<(K, String)>, SourceError> {
    let mut keys = Vec::with_capacity(options.len());
    for (name, value) in options {
        let key = K::from_str(&name.to_ascii_lowercase()).map_err(|_unknown| SourceError::Invalid {
            field: format!("option {name}"),
            problem: format!("a source of the kind {kind} has no such option"),
            fix: "use object_store's names, such as aws_access_key_id, proxy_url or read_timeout".to_owned(),
        })?;
        keys.push((key, value.clone()));
    }
    Ok(keys)
}

fn no_region(options: &SourceOptions, kind: &str) -> Result<(), SourceError> {
    match options.region {
        None => Ok(()),
        Some(_) => Err(SourceError::Invalid {
            field: "region".to_owned(),
            problem: format!("a source of the kind {kind} has no region"),
            fix: "remove it".to_owned(),
        }),
    }
}

pub(super) fn checked_endpoint(endpoint: &str) -> Result<String, SourceError> {
    let invalid = |problem: String| SourceError::Invalid {
        field: "endpoint".to_owned(),
        problem,
        fix: "write https://HOST[:PORT]".to_owned(),
    };
    let url =
        url::Url::parse(endpoint).map_err(|error| invalid(format!("{endpoint:?} is no URL: {error}")))?;
    let good_scheme = matches!(url.scheme(), "http" | "https");
    if !good_scheme || url.host_str().is_none() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(format!("{endpoint:?} is no address of a server")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it holds credentials".to_owned()));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

fn refused(error: &impl Display) -> SourceError {
    SourceError::Invalid {
        field: "options".to_owned(),
        problem: error.to_string(),
        fix: "see the provider's settings in the documentation of object_store".to_owned(),
    }
}

#[cfg(test)]
mod tests;
