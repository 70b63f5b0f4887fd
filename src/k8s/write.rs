//! Writes. Never whole objects: only patches, so that fields that we do not know stay as they are.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Value, json};

use super::lease::Fence;
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::nodeclaim::NodeClaim;
use crate::api::nodepool::NodePool;

/// Who writes, in `managedFields`.
const MANAGER: &str = "harbinger";

/// Why a write failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The object is gone: go on without it.
    #[error("not found")]
    NotFound,
    /// The object changed meanwhile, or is there already: read it again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A disruption budget does not allow it now: try again later.
    #[error("blocked: {0}")]
    Blocked(String),
    /// Permission is missing: tell the user.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The object is refused: tell the user.
    #[error("invalid: {0}")]
    Invalid(String),
    /// We may not lead any more: write nothing.
    #[error("leadership is not certain")]
    NotLeading,
    /// Anything else: try again later.
    #[error("{0}")]
    Transient(String),
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Transient(error.to_string()) };
        let message = status.message.clone();
        match status.code {
            404 => Self::NotFound,
            409 => Self::Conflict(message),
            429 => Self::Blocked(message),
            401 | 403 => Self::Forbidden(message),
            400 | 422 => Self::Invalid(message),
            _ => Self::Transient(message),
        }
    }
}

/// Writes to the API server while the fence holds.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    fence: Fence,
}

impl Writer {
    /// A writer that stops when `fence` falls.
    pub fn new(client: Client, fence: Fence) -> Self {
        Self { client, fence }
    }

    fn check(&self) -> Result<(), WriteError> {
        if self.fence.holds() { Ok(()) } else { Err(WriteError::NotLeading) }
    }

    /// Creates a claim and returns it with its UID.
    pub async fn create_claim(&self, claim: &NodeClaim) -> Result<NodeClaim, WriteError> {
        self.check()?;
        let params =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        Ok(Api::all(self.client.clone()).create(&params, claim).await?)
    }

    /// Merges `patch` into a claim's status.
    pub async fn patch_claim_status(&self, name: &str, patch: &Value) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<NodeClaim> = Api::all(self.client.clone());
        api.patch_status(name, &params(), &Patch::Merge(json!({"status": patch}))).await?;
        Ok(())
    }

    /// Merges `patch` into a claim.
    pub async fn patch_claim(&self, name: &str, patch: &Value) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<NodeClaim> = Api::all(self.client.clone());
        api.patch(name, &params(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Asks for a claim's deletion.
    pub async fn delete_claim(&self, name: &str, uid: &str) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<NodeClaim> = Api::all(self.client.clone());
        api.delete(name, &of_uid(uid)).await?;
        Ok(())
    }

    /// Merges `patch` into a node. With `resourceVersion` in its metadata it is refused when the
    /// node has changed meanwhile.
    pub async fn patch_node(&self, name: &str, patch: &Value) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch(name, &params(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// A node as it is now, for changes of its lists.
    pub async fn node(&self, name: &str) -> Result<Node, WriteError> {
        Ok(Api::<Node>::all(self.client.clone()).get(name).await?)
    }

    /// Asks for a node's deletion.
    pub async fn delete_node(&self, name: &str) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<Node> = Api::all(self.client.clone());
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Evicts a pod; [`WriteError::Blocked`] when a budget holds it.
    pub async fn evict(&self, namespace: &str, name: &str, uid: &str) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = EvictParams { delete_options: Some(of_uid(uid)), ..EvictParams::default() };
        match api.evict(name, &params).await.map_err(WriteError::from) {
            Ok(_) | Err(WriteError::NotFound | WriteError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes a pod with a grace period in seconds, past every budget.
    pub async fn delete_pod(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        grace: i64,
    ) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut params = of_uid(uid);
        params.grace_period_seconds = u32::try_from(grace).ok();
        match api.delete(name, &params).await.map_err(WriteError::from) {
            Ok(_) | Err(WriteError::NotFound | WriteError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Nominates a pod to a node. The UID keeps a new pod of the same name from being meant.
    pub async fn nominate(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        node: &str,
    ) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": node}});
        api.patch_status(name, &params(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Merges `patch` into a pool's status.
    pub async fn patch_pool_status(
        &self,
        name: &str,
        patch: &impl Serialize,
    ) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<NodePool> = Api::all(self.client.clone());
        api.patch_status(name, &params(), &Patch::Merge(json!({"status": patch}))).await?;
        Ok(())
    }

    /// Merges `patch` into a class's status.
    pub async fn patch_class_status(
        &self,
        name: &str,
        patch: &impl Serialize,
    ) -> Result<(), WriteError> {
        self.check()?;
        let api: Api<EC2NodeClass> = Api::all(self.client.clone());
        api.patch_status(name, &params(), &Patch::Merge(json!({"status": patch}))).await?;
        Ok(())
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn of_uid(uid: &str) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}
