//! Building object_store's clients from a source's configuration.
//!
//! Settings override each other in this order: Millpond's timeouts, the AWS profile, the environment, the options,
//! and last the URL. Retries, deadlines and hedges are in `fetch`: object_store's own are off, as is its time limit
//! over a complete body, which would cut every large object on a slow link.

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
use object_store::{BackoffConfig, Certificate, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::clients::{Clients, Connector};
use super::identity_token::IdentityToken;
use super::location::{SourceLocation, SourceUrl};
use super::page::Dialect;
use super::remote::{Lister, Remote};
use super::{Environment, SourceError, SourceOptions, isolation};

/// Servers that do not accept a connection in this time are not going to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the next bytes of one response.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Servers close idle connections after some 20 s (S3) to some minutes.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// As many as requests are in flight, so that many small GETs never wait for a handshake.
const POOL_PER_HOST: usize = 256;

/// Opens a source that is read over HTTP.
pub(super) fn connect(
    url: &SourceUrl,
    options: &SourceOptions,
    environment: &Environment,
    clients: &Clients,
    token: Option<&IdentityToken>,
) -> Result<Remote, SourceError> {
    // reqwest is built without a crypto provider of its own and panics where none was installed.
    millpond_process::tls::install();
    match &url.location {
        SourceLocation::S3 { bucket } => s3(bucket, options, environment, clients, token),
        SourceLocation::Gcs { bucket } => {
            no_token(token, "gs")?;
            gcs(bucket, options, environment, clients)
        }
        SourceLocation::Azure { container, account } => azure(
            container,
            account.as_deref(),
            options,
            environment,
            clients,
            token,
        ),
        SourceLocation::Http { root } => {
            no_token(token, "http")?;
            http(root, options, environment, clients)
        }
        SourceLocation::File { .. } => Err(SourceError::Unavailable {
            source_id: url.to_string(),
            reason: "a directory is not read over HTTP".to_owned(),
        }),
    }
}

fn client(endpoint: Option<&str>, options: &SourceOptions) -> Result<ClientOptions, SourceError> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        .with_timeout_disabled()
        .with_pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .with_pool_max_idle_per_host(POOL_PER_HOST)
        .with_http1_only()
        .with_config(
            ClientConfigKey::UserAgent,
            concat!("millpond/", env!("CARGO_PKG_VERSION")),
        );
    let Some(pem) = &options.ca_certificates else {
        return Ok(client);
    };
    let refused = |problem: String| SourceError::Invalid {
        field: "ca_certificates".to_owned(),
        problem,
        fix: "give certificates in PEM, each between BEGIN CERTIFICATE and END CERTIFICATE".to_owned(),
    };
    let certificates =
        Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| refused(error.to_string()))?;
    if certificates.is_empty() {
        return Err(refused("it holds no certificate".to_owned()));
    }
    Ok(certificates
        .into_iter()
        .fold(client, ClientOptions::with_root_certificate))
}

fn no_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: CONNECT_TIMEOUT,
    }
}

/// Settings in ascending precedence.
struct Settings<K>(Vec<(K, String)>);

impl<K: FromStr + PartialEq + AsRef<str>> Settings<K> {
    /// Returns the settings of the variables with this prefix, overridden by the options.
    fn of(
        kind: &str,
        options: &BTreeMap<String, String>,
        environment: &Environment,
        prefix: &str,
    ) -> Result<Self, SourceError> {
        // A variable may be meant for another program; an option is meant for this source.
        let variables = environment
            .starting_with(prefix)
            .filter_map(|(name, value)| Some((K::from_str(&name).ok()?, value.to_owned())));
        let mut settings: Vec<_> = variables.collect();
        settings.extend(known(kind, options, environment)?);
        Ok(Self(settings))
    }

    fn has(&self, wanted: &K) -> bool {
        self.0.iter().any(|(key, _)| key == wanted)
    }

    /// Returns whether an isolated source has no credentials, so that the client must not search for any.
    fn must_be_anonymous(&self, environment: &Environment) -> bool {
        environment.is_isolated()
            && !self
                .0
                .iter()
                .any(|(key, _)| isolation::is_credential(key.as_ref()))
    }

    fn remove(&mut self, unwanted: &[K]) {
        self.0.retain(|(key, _)| !unwanted.contains(key));
    }

    /// Removes and returns the server's address: that of `options`, else the last setting of the first of `keys`
    /// that is set.
    fn take_endpoint(&mut self, options: &SourceOptions, keys: &[K]) -> Result<Option<String>, SourceError> {
        let set = |wanted: &K| {
            self.0
                .iter()
                .rfind(|(key, _)| key == wanted)
                .map(|(_, value)| value.clone())
        };
        let endpoint = options.endpoint.clone().or_else(|| keys.iter().find_map(set));
        self.remove(keys);
        endpoint.map(|endpoint| checked_endpoint(&endpoint)).transpose()
    }
}

/// The common interface of object_store's provider builders; they share no trait.
trait Provider: Default {
    type Key;
    /// Returns whether a setting is one of the HTTP client.
    fn is_client_setting(key: &Self::Key) -> bool;
    fn with_client(self, client: ClientOptions, retry: RetryConfig, connector: Connector) -> Self;
    fn set(self, key: Self::Key, value: String) -> Self;
}

macro_rules! provider {
    ($builder:ty, $key:ident) => {
        impl Provider for $builder {
            type Key = $key;

            fn is_client_setting(key: &Self::Key) -> bool {
                matches!(key, $key::Client(_))
            }

            fn with_client(self, client: ClientOptions, retry: RetryConfig, connector: Connector) -> Self {
                self.with_client_options(client)
                    .with_retry(retry)
                    .with_http_connector(connector)
            }

            fn set(self, key: Self::Key, value: String) -> Self {
                self.with_config(key, value)
            }
        }
    };
}

provider!(AmazonS3Builder, AmazonS3ConfigKey);
provider!(GoogleCloudStorageBuilder, GoogleConfigKey);
provider!(MicrosoftAzureBuilder, AzureConfigKey);

/// Returns a provider's builder with its HTTP client and all settings.
fn provider_builder<B: Provider>(
    endpoint: Option<&str>,
    options: &SourceOptions,
    clients: &Clients,
    settings: Settings<B::Key>,
) -> Result<B, SourceError> {
    let shares = !settings.0.iter().any(|(key, _)| B::is_client_setting(key));
    let connector = connector(shares, clients, options);
    let builder = B::default().with_client(client(endpoint, options)?, no_retries(), connector);
    let set = |builder: B, (key, value)| builder.set(key, value);
    Ok(settings.0.into_iter().fold(builder, set))
}

fn connector(shares: bool, clients: &Clients, options: &SourceOptions) -> Connector {
    match shares {
        true => Connector::Shared {
            clients: clients.clone(),
            ca_certificates: options.ca_certificates.clone(),
        },
        false => Connector::Own,
    }
}

fn s3(
    bucket: &str,
    options: &SourceOptions,
    environment: &Environment,
    clients: &Clients,
    token: Option<&IdentityToken>,
) -> Result<Remote, SourceError> {
    use AmazonS3ConfigKey as Key;
    if environment.is_isolated() {
        isolation::refuse_profile(options)?;
    }
    let mut own = options.options.clone();
    let wanted = own.remove("aws_profile");
    let mut settings = Settings::<Key>::of("s3", &own, environment, "AWS_")?;
    if let Some(token) = token {
        needs(&settings, &Key::RoleArn)?;
        settings.0.push((Key::WebIdentityTokenFile, token.path()));
    }
    let anonymous = options.anonymous || settings.must_be_anonymous(environment);
    let web_identity = settings.has(&Key::WebIdentityTokenFile) && settings.has(&Key::RoleArn);
    let other_way = anonymous || settings.has(&Key::AccessKeyId) || web_identity;
    if wanted.is_some() {
        // A profile that is named explicitly: its keys override those of the environment.
        settings.remove(&[Key::AccessKeyId, Key::SecretAccessKey, Key::Token]);
    }
    if wanted.is_some() || !other_way {
        let profile = environment.aws_profile(wanted.as_deref())?;
        let profile = profile
            .into_iter()
            .filter_map(|(name, value)| Some((Key::from_str(&name).ok()?, value)));
        settings.0.splice(0..0, profile);
    }
    let endpoint = settings.take_endpoint(options, &[Key::S3Endpoint, Key::Endpoint])?;
    let mut builder: AmazonS3Builder = provider_builder(endpoint.as_deref(), options, clients, settings)?;
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if anonymous {
        builder = builder.with_skip_signature(true);
    }
    let store = builder
        .with_bucket_name(bucket)
        .build()
        .map_err(|error| refused(&error))?;
    Ok(paginated(Arc::new(store), Dialect::S3, endpoint))
}

fn gcs(
    bucket: &str,
    options: &SourceOptions,
    environment: &Environment,
    clients: &Clients,
) -> Result<Remote, SourceError> {
    use GoogleConfigKey as Key;
    no_region(options, "gs")?;
    let mut settings = Settings::<Key>::of("gs", &options.options, environment, "GOOGLE_")?;
    let endpoint = settings.take_endpoint(options, &[Key::BaseUrl])?;
    let anonymous = options.anonymous || settings.must_be_anonymous(environment);
    if let Some(path) = environment.get("SERVICE_ACCOUNT") {
        settings.0.insert(0, (Key::ServiceAccount, path.to_owned()));
    }
    let mut builder: GoogleCloudStorageBuilder =
        provider_builder(endpoint.as_deref(), options, clients, settings)?;
    if let Some(endpoint) = &endpoint {
        builder = builder.with_config(Key::BaseUrl, endpoint);
    }
    if anonymous {
        builder = builder.with_skip_signature(true);
    }
    let store = builder
        .with_bucket_name(bucket)
        .build()
        .map_err(|error| refused(&error))?;
    Ok(paginated(Arc::new(store), Dialect::S3, endpoint))
}

fn azure(
    container: &str,
    account: Option<&str>,
    options: &SourceOptions,
    environment: &Environment,
    clients: &Clients,
    token: Option<&IdentityToken>,
) -> Result<Remote, SourceError> {
    use AzureConfigKey as Key;
    no_region(options, "az")?;
    let mut settings = Settings::<Key>::of("az", &options.options, environment, "AZURE_")?;
    if let Some(token) = token {
        needs(&settings, &Key::ClientId)?;
        needs(&settings, &Key::AuthorityId)?;
        settings.0.push((Key::FederatedTokenFile, token.path()));
    }
    let endpoint = settings.take_endpoint(options, &[Key::Endpoint])?;
    let anonymous = options.anonymous || settings.must_be_anonymous(environment);
    if let Some(identity) = environment.get("IDENTITY_ENDPOINT") {
        settings.0.insert(0, (Key::MsiEndpoint, identity.to_owned()));
    }
    let mut builder: MicrosoftAzureBuilder =
        provider_builder(endpoint.as_deref(), options, clients, settings)?;
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if anonymous {
        builder = builder.with_skip_signature(true);
    }
    let store = builder
        .with_container_name(container)
        .build()
        .map_err(|error| refused(&error))?;
    Ok(paginated(Arc::new(store), Dialect::Azure, endpoint))
}

fn http(
    root: &url::Url,
    options: &SourceOptions,
    environment: &Environment,
    clients: &Clients,
) -> Result<Remote, SourceError> {
    no_region(options, "http")?;
    if options.endpoint.is_some() {
        return Err(SourceError::Invalid {
            field: "endpoint".to_owned(),
            problem: "an HTTP source has no other endpoint than its URL".to_owned(),
            fix: "remove it".to_owned(),
        });
    }
    let mut client = client(None, options)?.with_allow_http(root.scheme() == "http");
    for (key, value) in known::<ClientConfigKey>("http", &options.options, environment)? {
        client = client.with_config(key, value);
    }
    let store = HttpBuilder::new()
        .with_url(root.as_str())
        .with_client_options(client)
        .with_retry(no_retries())
        .with_http_connector(connector(options.options.is_empty(), clients, options))
        .build()
        .map_err(|error| refused(&error))?;
    Ok(Remote {
        store: Arc::new(store),
        lister: Lister::WebDav,
        on_wire: true,
        endpoint: None,
    })
}

fn paginated<S: ObjectStore + PaginatedListStore>(
    store: Arc<S>,
    dialect: Dialect,
    endpoint: Option<String>,
) -> Remote {
    let pages: Arc<dyn PaginatedListStore> = Arc::<S>::clone(&store);
    Remote {
        store,
        lister: Lister::Pages(pages, dialect),
        on_wire: true,
        endpoint,
    }
}

/// Returns the options as the provider's own type; an option that it does not know is an error.
fn known<K: FromStr + AsRef<str>>(
    kind: &str,
    options: &BTreeMap<String, String>,
    environment: &Environment,
) -> Result<Vec<(K, String)>, SourceError> {
    let mut keys = Vec::with_capacity(options.len());
    for (name, value) in options {
        let key = K::from_str(&name.to_ascii_lowercase()).map_err(|_unknown| SourceError::Invalid {
            field: format!("option {name}"),
            problem: format!("a source of the kind {kind} has no such option"),
            fix: "use object_store's names, such as aws_access_key_id, proxy_url or read_timeout".to_owned(),
        })?;
        if environment.is_isolated() {
            isolation::check(name, key.as_ref())?;
        }
        keys.push((key, value.clone()));
    }
    Ok(keys)
}

/// Refuses a web identity token without the option that it needs.
fn needs<K: FromStr + PartialEq + AsRef<str>>(settings: &Settings<K>, key: &K) -> Result<(), SourceError> {
    if settings.has(key) {
        return Ok(());
    }
    Err(SourceError::Invalid {
        field: format!("option {}", key.as_ref()),
        problem: "a web identity token needs it".to_owned(),
        fix: "add it to the options".to_owned(),
    })
}

fn no_token(token: Option<&IdentityToken>, kind: &str) -> Result<(), SourceError> {
    match token {
        None => Ok(()),
        Some(_) => Err(SourceError::Invalid {
            field: "web_identity_token".to_owned(),
            problem: format!("a source of the kind {kind} does not support one"),
            fix: "give credentials by a Secret".to_owned(),
        }),
    }
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

fn checked_endpoint(endpoint: &str) -> Result<String, SourceError> {
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
