//! Stores the authority in the cluster: its key in a Secret, its certificate in a ConfigMap.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tracing::info;

use super::authority::Authority;

/// The name of both objects.
const NAME: &str = "millpond-ca";
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// Loads the authority, or creates it. Of two replicas that create it concurrently the second loads that of the first.
///
/// # Errors
/// It can be neither loaded nor created.
pub(crate) async fn ensure(client: Client, namespace: &str) -> Result<Authority> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match secrets
        .get_opt(NAME)
        .await
        .context("failed to read the authority's Secret")?
    {
        Some(secret) => secret,
        None => create(&secrets).await?,
    };
    let data = secret.data.unwrap_or_default();
    let part = |name: &str| -> Result<String> {
        let bytes = data.get(name).with_context(|| {
            format!("the Secret {NAME} has no {name}: delete it, and it is created again")
        })?;
        String::from_utf8(bytes.0.clone()).with_context(|| format!("{name} of the Secret {NAME} is not PEM"))
    };
    let authority = Authority::from_pem(&part(CERTIFICATE)?, &part(KEY)?)
        .with_context(|| format!("the Secret {NAME} cannot be used: delete it, and it is created again"))?;
    let map = ConfigMap {
        metadata: metadata(),
        data: Some(BTreeMap::from([(
            CERTIFICATE.to_owned(),
            authority.certificate_pem().to_owned(),
        )])),
        ..ConfigMap::default()
    };
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    maps.patch(
        NAME,
        &PatchParams::apply(millpond_api::names::MANAGER).force(),
        &Patch::Apply(&map),
    )
    .await
    .context("failed to publish the authority's certificate")?;
    Ok(authority)
}

async fn create(secrets: &Api<Secret>) -> Result<Secret> {
    let (certificate, key) = Authority::generate()?;
    let secret = Secret {
        metadata: metadata(),
        data: Some(BTreeMap::from([
            (CERTIFICATE.to_owned(), ByteString(certificate.into_bytes())),
            (KEY.to_owned(), ByteString(key.into_bytes())),
        ])),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(secret) => {
            info!("created the certificate authority");
            Ok(secret)
        }
        // Another replica was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => secrets
            .get(NAME)
            .await
            .context("failed to read the authority's Secret"),
        Err(error) => Err(error).context("failed to create the authority's Secret"),
    }
}

fn metadata() -> ObjectMeta {
    let (label, value) = millpond_api::names::LABEL_MANAGED_BY;
    ObjectMeta {
        name: Some(NAME.to_owned()),
        labels: Some(BTreeMap::from([(label.to_owned(), value.to_owned())])),
        ..ObjectMeta::default()
    }
}
