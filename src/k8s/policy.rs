//! The status of request policies.

use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::write::{ATTEMPTS, params};
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
    let api = Api::<RequestPolicy>::all(client.clone());
    for attempt in 1.. {
        let object = api.get(name).await?;
        let Some(status) = next(&object) else { return Ok(()) };
        let version = object.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        match api.patch_status(name, &params(), &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(error)) if error.code == 409 && attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
