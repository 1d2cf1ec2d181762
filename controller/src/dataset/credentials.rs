//! Reads what mounts authenticate with: a Secret, by its name, since the controller may neither list nor watch Secrets, or
//! a ServiceAccount's token.

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
use crate::error::ApiError;
use crate::ttl_cache;

/// Shorter than every requeue interval of a Dataset, so that each reconciliation reads a rotated Secret.
const SECRET_TTL: Duration = Duration::from_secs(1);

/// The audience that S3's token service requires.
const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

const TOKEN_SECONDS: i64 = 3_600;

/// Far below [`TOKEN_SECONDS`], so that a worker never receives a token that is about to expire.
const TOKEN_TTL: Duration = Duration::from_secs(30);

/// The credentials of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// The mount names none.
    None,
    /// A Secret's keys and values.
    Secret(BTreeMap<String, String>),
    /// The mount names a Secret that does not exist.
    MissingSecret(String),
    /// A value of the Secret is not UTF-8.
    NotText { secret: String, key: String },
    /// A web identity token.
    Token(String),
    /// The mount names a ServiceAccount that does not exist.
    MissingAccount(String),
}

/// A namespace and a name in it.
type NamespacedName = (String, String);

/// Reads credentials.
#[derive(Clone)]
pub(crate) struct CredentialReader {
    client: Client,
    secrets: Cache<NamespacedName, Option<Arc<Secret>>>,
    tokens: Cache<NamespacedName, String>,
}

impl CredentialReader {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            secrets: ttl_cache::new(SECRET_TTL),
            tokens: ttl_cache::new(TOKEN_TTL),
        }
    }

    /// Reads the credentials that a mount of a Dataset in `namespace` names.
    pub(super) async fn read(&self, mount: &Mount, namespace: &str) -> Result<Credentials, Error> {
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
        let found = found.map_err(ApiError::during("read a Secret"))?;
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
        let requested = async {
            let params = PostParams::default();
            let granted = accounts.create_token_request(account, &params, &request).await?;
            Ok(granted.status.map(|status| status.token).unwrap_or_default())
        };
        let token = self.tokens.try_get_with(key, requested).await;
        match token.map_err(ApiError::during("request a token of a ServiceAccount")) {
            Ok(token) => Ok(Credentials::Token(token)),
            Err(error) if error.is_not_found() => Ok(Credentials::MissingAccount(account.to_owned())),
            Err(error) => Err(error.into()),
        }
    }
}

fn values(name: &str, secret: &Secret) -> Credentials {
    let mut values = BTreeMap::new();
    for (key, value) in secret.data.iter().flatten() {
        match str::from_utf8(&value.0) {
            Ok(value) => values.insert(key.clone(), value.trim_end_matches('\n').to_owned()),
            Err(_bytes) => {
                return Credentials::NotText {
                    secret: name.to_owned(),
                    key: key.clone(),
                };
            }
        };
    }
    Credentials::Secret(values)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(values: &[(&str, &[u8])]) -> Secret {
        let values = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
        Secret {
            data: Some(values.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_value_ends_before_its_line_break() {
        let found = values("keys", &secret(&[("id", b"AKIA\n"), ("region", b"eu")]));
        let expected = [("id", "AKIA"), ("region", "eu")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(found, Credentials::Secret(expected.into()));
    }

    #[test]
    fn a_value_that_is_not_text_is_named() {
        let expected = Credentials::NotText {
            secret: "keys".to_owned(),
            key: "id".to_owned(),
        };
        assert_eq!(values("keys", &secret(&[("id", &[0xff])])), expected);
    }
}
