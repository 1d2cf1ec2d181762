//! Reads what a Dataset's spec names: its pool, and for each mount a Secret or a ServiceAccount's token.

use std::collections::BTreeMap;

use api::{Dataset, Mount};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use super::{Context, Error};

/// What S3's token service wants to read in a token.
const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

/// A token is asked for anew long before it ends, at each reconciliation.
const TOKEN_SECONDS: i64 = 3_600;

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

/// Everything that a spec names.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// The pool's name, where there is such a pool.
    pub(super) pool: Pool,
    /// Of each mount, in their order.
    pub(super) credentials: Vec<Credentials>,
}

/// The pool of a Dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// It is there, and so large.
    Found { name: String, capacity_bytes: u64 },
    /// There is none of that name.
    Missing(String),
    /// The spec names none, and there is no default.
    NoDefault,
    /// The spec names none, and there are several defaults.
    SeveralDefaults(Vec<String>),
}

pub(super) async fn dereference(dataset: &Dataset, context: &Context) -> Result<Named, Error> {
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let mut credentials = Vec::with_capacity(dataset.spec.mounts.len());
    for mount in &dataset.spec.mounts {
        credentials.push(credentials_of(mount, &namespace, context).await?);
    }
    Ok(Named {
        pool: pool(dataset, context),
        credentials,
    })
}

fn pool(dataset: &Dataset, context: &Context) -> Pool {
    let name = match &dataset.spec.pool {
        Some(name) => name.clone(),
        None => {
            let mut defaults = context.cluster.default_pools();
            defaults.sort();
            match defaults.as_slice() {
                [] => return Pool::NoDefault,
                [name] => name.clone(),
                _ => return Pool::SeveralDefaults(defaults),
            }
        }
    };
    match context.cluster.pools.get(&ObjectRef::new(&name)) {
        Some(pool) => Pool::Found {
            name,
            capacity_bytes: pool.spec.tiers.iter().map(|tier| tier.capacity.0).sum(),
        },
        None => Pool::Missing(name),
    }
}

async fn credentials_of(mount: &Mount, namespace: &str, context: &Context) -> Result<Credentials, Error> {
    let client = context.cluster.client.clone();
    if let Some(secret) = &mount.secret_ref {
        let found = context
            .secrets
            .get(namespace, &secret.name)
            .await
            .map_err(Error::api("read a Secret"))?;
        return Ok(found.map_or_else(
            || Credentials::MissingSecret(secret.name.clone()),
            |found| read(&secret.name, &found),
        ));
    }
    let Some(account) = &mount.service_account_name else {
        return Ok(Credentials::None);
    };
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![WEB_IDENTITY_AUDIENCE.to_owned()],
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let asked = Api::<ServiceAccount>::namespaced(client, namespace)
        .create_token_request(account, &PostParams::default(), &request)
        .await;
    match asked {
        Ok(request) => Ok(Credentials::Token(
            request.status.map(|status| status.token).unwrap_or_default(),
        )),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Ok(Credentials::MissingAccount(account.clone()))
        }
        Err(error) => Err(Error::api("get a token of a ServiceAccount")(error)),
    }
}

fn read(name: &str, secret: &Secret) -> Credentials {
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
