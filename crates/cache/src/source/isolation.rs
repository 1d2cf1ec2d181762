//! What a source may use of this host.
//!
//! On a single machine users name their own files and their own environment. A worker that serves many tenants has
//! secrets of its own in files that it can read: there, a source gets everything by value, and names neither files
//! nor programs; and a source without credentials is read without any, not with the node's.

use super::{SourceError, SourceOptions};

/// Options that make a client read a file of this host, run a program, or ask the host for credentials.
const OF_THE_HOST: [&str; 10] = [
    "aws_container_authorization_token_file",
    "aws_container_credentials_full_uri",
    "aws_container_credentials_relative_uri",
    "aws_metadata_endpoint",
    "aws_web_identity_token_file",
    "azure_federated_token_file",
    "azure_msi_endpoint",
    "azure_use_azure_cli",
    "google_application_credentials",
    "google_service_account",
];

/// Options that are credentials, or one half of a pair.
const CREDENTIALS: [&str; 12] = [
    "aws_access_key_id",
    "aws_session_token",
    "aws_web_identity_token_file",
    "azure_fabric_session_token",
    "azure_federated_token_file",
    "azure_storage_account_key",
    "azure_storage_client_secret",
    "azure_storage_sas_key",
    "azure_storage_token",
    "google_bearer_token",
    "google_service_account_key",
    "google_service_account",
];

/// Refuses an option, by its canonical name, that uses the host.
pub(super) fn check(written: &str, canonical: &str) -> Result<(), SourceError> {
    if !OF_THE_HOST.contains(&canonical) {
        return Ok(());
    }
    Err(SourceError::Invalid {
        field: format!("option {written}"),
        problem: "it leads to the worker's own files or identity, which no source may use".to_owned(),
        fix: "give keys by value, or a web identity token".to_owned(),
    })
}

/// Returns whether an option, by its canonical name, is a credential.
pub(super) fn is_credential(canonical: &str) -> bool {
    CREDENTIALS.contains(&canonical)
}

/// Refuses an AWS profile: it is in a file.
pub(super) fn refuse_profile(options: &SourceOptions) -> Result<(), SourceError> {
    match options.options.get("aws_profile") {
        Some(_) => check("aws_profile", "aws_web_identity_token_file"),
        None => Ok(()),
    }
}
