//! Statuses: the one function that writes them, and the text of a ratio.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use millpond_api::names;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Replaces the status of an object by server-side apply and returns the object as the API server has it then.
///
/// Forced: this field manager is the only owner of a status.
pub(crate) async fn write<K, S>(api: &Api<K>, object: &K, status: &S) -> Result<K, ApiError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize,
{
    let name = object.name_any();
    let patch = serde_json::json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(names::MANAGER).force();
    api.patch_status(&name, &params, &Patch::Apply(patch))
        .await
        .map_err(ApiError::during("write the status"))
}

/// Returns `part / total` with one digit, for example `42.0%`, rounded down; `100.0%` where the total is 0.
pub(crate) fn percentage(part: u64, total: u64) -> String {
    let thousandths = match total {
        0 => 1_000,
        total => u128::from(part) * 1_000 / u128::from(total),
    };
    format!("{}.{}%", thousandths / 10, thousandths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_one_digit() {
        assert_eq!(percentage(0, 0), "100.0%");
        assert_eq!(percentage(1, 3), "33.3%");
        assert_eq!(percentage(u64::MAX, u64::MAX), "100.0%");
    }
}
