//! What mounts authenticate by: a Secret, read by its name, since the controller may neither list nor watch them, or a
//! ServiceAccount's token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use millpond_api::Mount;
use moka::future::Cache;

use super::Error;
use crate::ttl_cache;

/// Short beside the pause between two looks at a Dataset, so that a Secret that was rotated or mended is taken when it is
/// looked at.
const SECRET_TTL: Duration = Duration::from_secs(1);

/// What S3's token service wants to read in a token.
const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

const TOKEN_SECONDS: i64 = 3_600;

/// A token is asked for anew long before it ends.
const TOKEN_TTL: Duration = Duration::from_secs(30);

/// What a mount's Secret is, or its ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// The mount names none.
    None,
    /// A Secret's keys and values.
    Secret(BTreeMap<String, String>),
    /// The Secret that it names is not there.
    MissingSecret(String),
    /// A value of the Secret is not text.
    NoText { secret: String, key: String },
    /// A web identity token.
    Token(String),
    /// The ServiceAccount that it names is not there.
    MissingAccount(String),
}

/// A namespace and a name in it.
type Place = (String, String);

/// Reads credentials.
#[derive(Clone)]
pub(crate) struct CredentialReader {
    client: Client,
    secrets: Cache<Place, Option<Arc<Secret>>>,
    tokens: Cache<Place, String>,
}

impl CredentialReader {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            secrets: ttl_cache::answers(SECRET_TTL),
            tokens: ttl_cache::answers(TOKEN_TTL),
        }
    }

    /// What a mount of a Dataset in `namespace` names.
    pub(super) async fn of(&self, mount: &Mount, namespace: &str) -> Result<Credentials, Error> {
        match (&mount.secret_ref, &mount.service_account_name) {
            (Some(secret), _) => self.secret(namespace, &secret.name).await,
            (None, Some(account)) => self.token(namespace, account).await,
            (None, None) => Ok(Credentials::None),
        }
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Credentials, Error> {
        let key = (namespace.to_owned(), name.to_owned());
        let api = Api::namespaced(self.client.clone(), namespace);
        let read = async { Ok(api.get_opt(name).await?.map(Arc::new)) };
        let found = self.secrets.try_get_with(key, read).await;
        let found = found.map_err(Error::api("read a Secret"))?;
        Ok(found.map_or_else(
            || Credentials::MissingSecret(name.to_owned()),
            |found| values(name, &found),
        ))
    }

    async fn token(&self, namespace: &str, account: &str) -> Result<Credentials, Error> {
        let key = (namespace.to_owned(), account.to_owned());
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![WEB_IDENTITY_AUDIENCE.to_owned()],
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let asked = async {
            let params = PostParams::default();
            let granted = accounts.create_token_request(account, &params, &request).await?;
            Ok(granted.status.map(|status| status.token).unwrap_or_default())
        };
        match self.tokens.try_get_with(key, asked).await {
            Ok(token) => Ok(Credentials::Token(token)),
            Err(error) if is_missing(&error) => Ok(Credentials::MissingAccount(account.to_owned())),
            Err(error) => Err(Error::api("get a token of a ServiceAccount")(error)),
        }
    }
}

fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn values(name: &str, secret: &Secret) -> Credentials {
    let mut values = BTreeMap::new();
    for (key, value) in secret.data.iter().flatten() {
        match str::from_utf8(&value.0) {
            Ok(value) => values.insert(key.clone(), value.trim_end_matches('\n').to_owned()),
            Err(_bytes) => {
                return Credentials::NoText {
                    secret: name.to_owned(),
                    key: key.clone(),
                };
            }
        };
    }
    Credentials::Secret(values)
}
