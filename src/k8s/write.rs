//! Writes. Never whole objects: only patches, so that fields that we do not know stay as they are.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{
    DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::Connection;
use super::lease::Fence;
use super::usage;
use crate::api::conditions::{self, Condition, Update};
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::labels::CLASS_FINALIZER;
use crate::api::nodeclaim::NodeClaim;
use crate::api::nodeoverlay::NodeOverlay;
use crate::api::nodepool::NodePool;
use crate::api::reservation::Reservation;
use crate::server::{
    About, ApiError, ApiServer, ConditionUpdate, EventNote, NodeChange, PodUsage, Profile,
};

/// Who writes, in `managedFields` and Events.
pub(super) const MANAGER: &str = "harbinger";
/// Our finalizer on claims and nodes, Karpenter's so that either can take over.
pub const FINALIZER: &str = "karpenter.sh/termination";
/// Annotation with the number of the leader's term, so that it can be told who decided what.
const TERM: &str = "harbinger.sh/term";
/// Attempts of a read-modify-write when others write too.
const ATTEMPTS: usize = 5;

impl From<kube::Error> for ApiError {
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
    /// See [`Connection::impatient`].
    impatient: Client,
    fence: Fence,
    /// Name of this process, for Events.
    identity: String,
}

impl Writer {
    /// A writer that stops when `fence` falls.
    pub fn new(connection: &Connection, fence: Fence, identity: &str) -> Self {
        Self {
            client: connection.client.clone(),
            impatient: connection.impatient.clone(),
            fence,
            identity: identity.to_owned(),
        }
    }

    fn check(&self) -> Result<(), ApiError> {
        if self.fence.holds() { Ok(()) } else { Err(ApiError::NotLeading) }
    }

    fn all<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }

    fn reservations_of(&self, namespace: &str) -> Api<Reservation> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Merges into a status whose conditions are read and set in the same step.
    async fn update_status<K>(
        &self,
        name: &str,
        status: Value,
        updates: &[ConditionUpdate],
        root: &[&str],
        now: Timestamp,
    ) -> Result<(), ApiError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let api = &self.all::<K>();
        let status = &status;
        read_modify_write(|| async move {
            self.check()?;
            let object = api.get(name).await?;
            let version = object.resource_version();
            let whole = serde_json::to_value(&object).unwrap_or_default();
            let mut list: Vec<Condition> =
                serde_json::from_value(whole["status"]["conditions"].clone()).unwrap_or_default();
            let generation = object.meta().generation;
            let mut changed = false;
            for update in updates {
                let Some(status) = update.status else {
                    let before = list.len();
                    list.retain(|condition| condition.type_ != update.condition);
                    changed |= list.len() != before;
                    continue;
                };
                let update = Update {
                    type_: update.condition,
                    status,
                    reason: &update.reason,
                    message: &update.message,
                    generation,
                };
                changed |= conditions::set(&mut list, update, now);
            }
            changed |= conditions::set_root(&mut list, root, generation, now);
            let mut status = status.clone();
            if let Value::Object(map) = &mut status {
                if map.is_empty() && !changed {
                    return Ok(());
                }
                map.insert("conditions".to_owned(), json!(list));
            }
            let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
            api.patch_status(name, &params(), &Patch::Merge(&patch)).await?;
            Ok(())
        })
        .await
    }
}

/// Runs an attempt that reads, changes and writes; again when others have written in between.
pub(super) async fn read_modify_write<F>(attempt: impl Fn() -> F) -> Result<(), ApiError>
where
    F: Future<Output = Result<(), ApiError>>,
{
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(ApiError::Conflict(_)) => {}
            done => return done,
        }
    }
    attempt().await
}

impl Writer {
    /// Puts a finalizer on an object, or takes it off; the others stay.
    async fn finalizer<K>(&self, name: &str, ours: &str, hold: bool) -> Result<(), ApiError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let api = &self.all::<K>();
        read_modify_write(|| async move {
            self.check()?;
            let object = api.get_metadata(name).await?;
            let mut finalizers = object.finalizers().to_vec();
            finalizers.retain(|finalizer| finalizer != ours);
            if hold {
                finalizers.push(ours.to_owned());
            }
            let version = object.resource_version();
            let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
            api.patch_metadata(name, &params(), &Patch::Merge(&patch)).await?;
            Ok(())
        })
        .await
    }
}

impl ApiServer for Writer {
    async fn create_claim(&self, claim: Value) -> Result<String, ApiError> {
        self.check()?;
        let mut claim: NodeClaim =
            serde_json::from_value(claim).map_err(|error| ApiError::Invalid(error.to_string()))?;
        claim.annotations_mut().insert(TERM.to_owned(), self.fence.term().to_string());
        let params =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let created = self.all::<NodeClaim>().create(&params, &claim).await?;
        Ok(created.uid().unwrap_or_default())
    }

    async fn patch_claim(&self, name: &str, patch: Value) -> Result<(), ApiError> {
        self.check()?;
        self.all::<NodeClaim>().patch(name, &params(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    async fn update_claim_status(
        &self,
        name: &str,
        status: Value,
        conditions: &[ConditionUpdate],
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let root = conditions::NODE_CLAIM_ROOT;
        self.update_status::<NodeClaim>(name, status, conditions, root, now).await
    }

    async fn delete_claim(&self, name: &str, uid: &str) -> Result<(), ApiError> {
        self.check()?;
        self.all::<NodeClaim>().delete(name, &of_uid(uid)).await?;
        Ok(())
    }

    async fn finish_claim(&self, name: &str) -> Result<(), ApiError> {
        self.finalizer::<NodeClaim>(name, FINALIZER, false).await
    }

    async fn change_node(&self, name: &str, change: &NodeChange) -> Result<(), ApiError> {
        let api = &self.all::<Node>();
        read_modify_write(|| async move {
            self.check()?;
            let node = api.get(name).await?;
            let patch = node_patch(&node, change);
            api.patch(name, &params(), &Patch::Merge(&patch)).await?;
            Ok(())
        })
        .await
    }

    async fn delete_node(&self, name: &str) -> Result<(), ApiError> {
        self.check()?;
        self.all::<Node>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn evict(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        self.check()?;
        let api: Api<Pod> = Api::namespaced(self.impatient.clone(), namespace);
        let params = EvictParams { delete_options: Some(of_uid(uid)), ..EvictParams::default() };
        match api.evict(name, &params).await.map_err(ApiError::from) {
            Ok(_) | Err(ApiError::NotFound | ApiError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_pod(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        grace: i64,
    ) -> Result<(), ApiError> {
        self.check()?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut params = of_uid(uid);
        params.grace_period_seconds = u32::try_from(grace).ok();
        match api.delete(name, &params).await.map_err(ApiError::from) {
            Ok(_) | Err(ApiError::NotFound | ApiError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn nominate(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        node: &str,
    ) -> Result<(), ApiError> {
        self.check()?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        // The UID keeps a new pod of the same name from being meant.
        let patch = json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": node}});
        api.patch_status(name, &params(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    async fn update_pool_status(
        &self,
        name: &str,
        status: Value,
        conditions: &[ConditionUpdate],
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let root = conditions::NODE_POOL_ROOT;
        self.update_status::<NodePool>(name, status, conditions, root, now).await
    }

    async fn update_overlay_status(
        &self,
        name: &str,
        conditions: &[ConditionUpdate],
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let root = conditions::NODE_OVERLAY_ROOT;
        self.update_status::<NodeOverlay>(name, json!({}), conditions, root, now).await
    }

    async fn hold_class(&self, name: &str, hold: bool) -> Result<(), ApiError> {
        self.finalizer::<EC2NodeClass>(name, CLASS_FINALIZER, hold).await
    }

    async fn patch_class_status(&self, name: &str, status: Value) -> Result<(), ApiError> {
        self.check()?;
        let patch = Patch::Merge(json!({"status": status}));
        self.all::<EC2NodeClass>().patch_status(name, &params(), &patch).await?;
        Ok(())
    }

    async fn reservations(&self) -> Result<Vec<(String, String)>, ApiError> {
        let api: Api<Reservation> = Api::all(self.client.clone());
        let list = api.list_metadata(&ListParams::default()).await?;
        let name = |object: &kube::core::PartialObjectMeta<Reservation>| {
            (object.namespace().unwrap_or_default(), object.name_any())
        };
        Ok(list.items.iter().map(name).collect())
    }

    async fn create_reservation(&self, reservation: Value) -> Result<(), ApiError> {
        self.check()?;
        let reservation: Reservation = serde_json::from_value(reservation)
            .map_err(|error| ApiError::Invalid(error.to_string()))?;
        let namespace = reservation.namespace().unwrap_or_default();
        let params =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        self.reservations_of(&namespace).create(&params, &reservation).await?;
        Ok(())
    }

    async fn update_reservation(
        &self,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> Result<(), ApiError> {
        self.check()?;
        let patch = Patch::Merge(json!({"status": status}));
        self.reservations_of(namespace).patch_status(name, &params(), &patch).await?;
        Ok(())
    }

    async fn delete_reservation(&self, namespace: &str, name: &str) -> Result<(), ApiError> {
        self.check()?;
        self.reservations_of(namespace).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, ApiError> {
        usage::usage(&self.client).await
    }

    async fn profiles(&self) -> Result<Vec<Profile>, ApiError> {
        usage::profiles(&self.client).await
    }

    async fn write_profile(&self, profile: &Profile) -> Result<(), ApiError> {
        self.check()?;
        usage::write_profile(&self.client, profile).await
    }

    async fn delete_profile(&self, namespace: &str, name: &str) -> Result<(), ApiError> {
        self.check()?;
        usage::delete_profile(&self.client, namespace, name).await
    }

    async fn event(&self, note: EventNote) {
        let About { api_version, kind, namespace, name, uid } = note.about;
        // Events of cluster-scoped objects live in `default`, as the field does it.
        let home = if namespace.is_empty() { "default" } else { &*namespace }.to_owned();
        let time = Time(note.at);
        let event = Event {
            metadata: kube::core::ObjectMeta {
                generate_name: Some(format!("{name}.")),
                namespace: Some(home.clone()),
                ..kube::core::ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: (!namespace.is_empty()).then_some(namespace),
                name: Some(name),
                uid: (!uid.is_empty()).then_some(uid),
                ..ObjectReference::default()
            },
            reason: Some(note.reason.to_owned()),
            // The API server takes 1024 bytes.
            message: Some(note.message.chars().take(1000).collect()),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            event_time: Some(MicroTime(note.at)),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            action: Some(note.reason.to_owned()),
            reporting_component: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            count: Some(1),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &home);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, reason = note.reason, "event was not written");
        }
    }
}

/// The patch of a node that makes the change to what the node has now.
fn node_patch(node: &Node, change: &NodeChange) -> Value {
    let mut metadata = json!({"resourceVersion": node.resource_version()});
    let map = |pairs: &[(String, String)]| -> Value {
        pairs.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect()
    };
    if !change.labels.is_empty() {
        metadata["labels"] = map(&change.labels);
    }
    if !change.annotations.is_empty() {
        metadata["annotations"] = map(&change.annotations);
    }
    let mut finalizers = node.finalizers().to_vec();
    if let Some(finalizer) = &change.add_finalizer
        && !finalizers.contains(finalizer)
    {
        finalizers.push(finalizer.clone());
        metadata["finalizers"] = json!(finalizers);
    }
    if let Some(finalizer) = &change.remove_finalizer {
        finalizers.retain(|own| own != finalizer);
        metadata["finalizers"] = json!(finalizers);
    }
    if let Some((name, uid)) = &change.owner
        && !node.owner_references().iter().any(|owner| owner.uid == *uid)
    {
        let mut owners = json!(node.owner_references());
        if let Value::Array(list) = &mut owners {
            list.push(json!({
                "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": name, "uid": uid,
                "blockOwnerDeletion": true,
            }));
        }
        metadata["ownerReferences"] = owners;
    }
    let mut patch = json!({"metadata": metadata});
    if !change.add_taints.is_empty() || !change.remove_taints.is_empty() {
        let mut taints =
            node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        taints.retain(|taint| !change.remove_taints.contains(&taint.key));
        let mut list: Vec<Value> = taints.iter().map(|taint| json!(taint)).collect();
        for taint in &change.add_taints {
            let effect = taint.effect.to_string();
            if !taints.iter().any(|own| own.key == taint.key && own.effect == effect) {
                list.push(json!(taint));
            }
        }
        patch["spec"] = json!({"taints": list});
    }
    patch
}

pub(super) fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn of_uid(uid: &str) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::taints::{Taint, TaintEffect};

    #[test]
    fn a_node_keeps_what_others_wrote() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "resourceVersion": "7", "finalizers": ["theirs"]},
            "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]}
        }))
        .unwrap();
        let change = NodeChange {
            add_taints: vec![
                Taint::new("a", TaintEffect::NoSchedule),
                Taint::new("c", TaintEffect::NoSchedule),
            ],
            remove_taints: vec!["b".to_owned()],
            add_finalizer: Some(FINALIZER.to_owned()),
            ..NodeChange::default()
        };
        let patch = node_patch(&node, &change);
        assert_eq!(patch["metadata"]["finalizers"], json!(["theirs", FINALIZER]));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let keys: Vec<&str> = patch["spec"]["taints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["key"].as_str().unwrap())
            .collect();
        assert_eq!(keys, ["a", "c"]);
    }
}
