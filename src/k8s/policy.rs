//! The status of request policies.

use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::write::{params, read_modify_write};
use crate::api::requestpolicy::{RequestPolicy, RequestPolicyStatus};
use crate::server::ApiError;

/// Changes a policy's status by what `next` makes of the object; `None` leaves it. Replicas write in
/// turns: who finds that another has written reads again.
///
/// # Errors
/// When the API server refuses it, or others keep writing.
pub async fn update_status(
    client: &Client,
    name: &str,
    next: impl Fn(&RequestPolicy) -> Option<RequestPolicyStatus>,
) -> Result<(), ApiError> {
    let (api, next) = (&Api::<RequestPolicy>::all(client.clone()), &next);
    read_modify_write(|| async move {
        let object = api.get(name).await?;
        let Some(status) = next(&object) else { return Ok(()) };
        let version = object.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        api.patch_status(name, &params(), &Patch::Merge(&patch)).await?;
        Ok(())
    })
    .await
}
