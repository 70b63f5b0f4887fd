//! Claims first, then the fleet call, then what it brought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Clock, Context, Message, Outcome};
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::project;
use crate::cloud::{Cloud, CloudError, Instance, LaunchOption, LaunchOrder};
use crate::model::claim::{Claim, ClaimStage};
use crate::model::digest::hex;
use crate::model::instance::{Asked, InstanceType};
use crate::model::labels::{self, Labels};
use crate::model::pool::Pool;
use crate::model::resources::Resources;
use crate::plan::catalogs::PRICE_OVERLAY_APPLIED;
use crate::plan::draft::{ClaimDraft, LaunchChoice, registration_taints};
use crate::plan::drift::class_digest;
use crate::plan::{Catalog, Catalogs};
use crate::server::{About, ApiError, ApiServer, ConditionUpdate};
use crate::telemetry::metrics::PoolReasonLabel;

/// Tag by which instances of an unanswered call are found again.
pub const GROUP_TAG: &str = "harbinger.sh/launch-group";
/// Longest wait between attempts of one call.
const MOST_BACKOFF: Duration = Duration::from_secs(10);
/// Attempts before the claims are left to the launch time-out.
const ATTEMPTS: u32 = 30;

/// A claim that waits for an instance.
#[derive(Clone, Debug)]
struct Waiting {
    name: Arc<str>,
    uid: Arc<str>,
}

/// Equal launches.
struct Group<'a> {
    id: &'a str,
    /// Claims of the group, those that have their instance included.
    size: usize,
    /// Instances that have their claim.
    taken: BTreeSet<Arc<str>>,
    pool: &'a Arc<Pool>,
    class: &'a Arc<EC2NodeClass>,
    options: &'a [LaunchChoice],
    labels: &'a Labels,
    /// Whether an overlay made the prices of the options.
    overlaid: bool,
    requests: &'a Resources,
}

/// What the classes offer, and who is told when that turns out to be wrong.
#[derive(Clone, Debug)]
pub struct Offers {
    /// What the planner knew.
    pub catalogs: Catalogs,
    /// The decider.
    pub tell: mpsc::Sender<Message>,
}

/// Creates the claims of one group and launches them with one call.
pub async fn fresh<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    class: Option<Arc<EC2NodeClass>>,
    drafts: Vec<ClaimDraft>,
    offers: &Offers,
    first_event: Instant,
) {
    let (Some(class), Some(first)) = (class, drafts.first()) else { return };
    let digest = &class_digest(&project::class(&class));
    let mut creating: FuturesUnordered<_> = drafts
        .iter()
        .map(|draft| async move { (draft, context.api.create_claim(object(draft, digest)).await) })
        .collect();
    let mut created = Vec::new();
    while let Some((draft, result)) = creating.next().await {
        match result {
            Ok(uid) => created.push(Waiting { name: Arc::clone(&draft.name), uid: uid.into() }),
            Err(error) => {
                context.record("create_claim", &draft.name, &Outcome::Failed(error.to_string()));
            }
        }
    }
    drop(creating);
    created.sort_by(|a, b| a.name.cmp(&b.name));
    let labels =
        PoolReasonLabel { nodepool: first.pool.name.to_string(), reason: "provisioned".into() };
    context
        .metrics
        .claims_created
        .get_or_create(&labels)
        .inc_by(u64::try_from(created.len()).unwrap_or(0));
    let mut group = Group {
        id: &first.group,
        size: created.len(),
        taken: BTreeSet::new(),
        pool: &first.pool,
        class: &class,
        options: &first.options,
        labels: &first.labels,
        overlaid: first.annotations.contains_key(PRICE_OVERLAY_APPLIED),
        requests: &first.requests,
    };
    context.metrics.event_to_launch_seconds.observe(first_event.elapsed().as_secs_f64());
    launch(context, &mut group, created, offers).await;
}

/// Launches what is left of a group that was created before. Instances that an earlier call brought
/// are taken first.
pub async fn resumed<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    class: Option<Arc<EC2NodeClass>>,
    pool: &Arc<Pool>,
    members: &[Arc<Claim>],
    id: &str,
    offers: &Offers,
) {
    let Some(class) = class else { return };
    let waiting: Vec<Waiting> = members
        .iter()
        .filter(|claim| claim.stage == ClaimStage::Pending && !claim.deleting())
        .map(|claim| Waiting { name: Arc::clone(&claim.name), uid: Arc::clone(&claim.uid) })
        .collect();
    let Some(first) = members.first() else { return };
    let options = options_of(first, pool, &offers.catalogs);
    let mut group = Group {
        id,
        size: members.len(),
        taken: members.iter().map(|claim| Arc::clone(&claim.provider_id)).collect(),
        pool,
        class: &class,
        options: &options,
        labels: &first.labels,
        overlaid: first.annotations.contains_key(PRICE_OVERLAY_APPLIED),
        requests: &first.requests,
    };
    let waiting = match found(context, id).await {
        Ok(instances) => hand_out(context, &mut group, waiting, instances, offers).await,
        Err(error) => return context.record("launch", id, &Outcome::Failed(error.to_string())),
    };
    if !waiting.is_empty() {
        launch(context, &mut group, waiting, offers).await;
    }
}

/// Instances that an earlier call for the group brought.
async fn found<A, C: Cloud, K>(
    context: &Context<A, C, K>,
    id: &str,
) -> Result<Vec<Instance>, CloudError> {
    let mut instances = context.cloud.list().await?;
    instances.retain(|instance| {
        !instance.terminating && instance.tags.get(GROUP_TAG).is_some_and(|tag| tag == id)
    });
    Ok(instances)
}

/// The options of a claim that exists: its types, zones and capacity types at today's prices.
fn options_of(claim: &Claim, pool: &Pool, catalogs: &Catalogs) -> Vec<LaunchChoice> {
    let Some(catalog) = catalogs.of(pool) else { return Vec::new() };
    let asked = Asked::of(&claim.requirements);
    let mut options = Vec::new();
    let fits =
        |kind: &&Arc<InstanceType>| claim.requirements.conflict(&kind.requirements).is_none();
    for instance in catalog.types.iter().filter(fits) {
        for offering in instance.offerings.iter().filter(|offering| offering.available) {
            if asked.met_by(offering) {
                options.push(LaunchChoice {
                    price: offering.price,
                    instance_type: Arc::clone(&instance.name),
                    zone: Arc::clone(&offering.zone),
                    capacity_type: offering.capacity_type,
                    reservation: offering.reserved.as_ref().map(|of| Arc::clone(&of.reservation)),
                });
            }
        }
    }
    options.sort();
    options
}

async fn launch<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    group: &mut Group<'_>,
    mut waiting: Vec<Waiting>,
    offers: &Offers,
) {
    let mut backoff = Duration::from_millis(200);
    // A new token is taken only when the old one is known to be used up.
    let mut generation = 0;
    for _ in 0..ATTEMPTS {
        if waiting.is_empty() {
            return;
        }
        // The first call asks for the whole group, so that repeating it means the same.
        let count = if generation == 0 { group.size } else { waiting.len() };
        let order = order(group, generation, count);
        match context.cloud.launch(&order, context.clock.now()).await {
            Ok(result) => {
                context.record("launch", group.id, &Outcome::Applied);
                // What reservations have left must be known before the claims count as launched.
                let reserved = group.options.iter().any(|option| option.reservation.is_some());
                if reserved || !result.shortages.is_empty() {
                    correct(context, group, offers).await;
                }
                waiting = hand_out(context, group, waiting, result.instances, offers).await;
                return no_capacity(
                    context,
                    group,
                    &waiting,
                    "the provider launched fewer instances than asked",
                )
                .await;
            }
            Err(CloudError::InsufficientCapacity { message }) => {
                correct(context, group, offers).await;
                return no_capacity(context, group, &waiting, &message).await;
            }
            Err(CloudError::TokenMismatch { .. }) => {
                generation += 1;
                let instances = found(context, group.id).await.unwrap_or_default();
                waiting = hand_out(context, group, waiting, instances, offers).await;
            }
            Err(
                error @ (CloudError::ClassNotReady { .. }
                | CloudError::Denied { .. }
                | CloudError::NotFound { .. }),
            ) => {
                context.record("launch", group.id, &Outcome::Failed(error.to_string()));
                for claim in &waiting {
                    let text: String = error.to_string().chars().take(300).collect();
                    let condition = ConditionUpdate::unknown("Launched", "LaunchFailed", &text);
                    let now = context.clock.now();
                    drop(
                        context
                            .api
                            .update_claim_status(&claim.name, json!({}), &[condition], now)
                            .await,
                    );
                }
                if !context.pause(MOST_BACKOFF).await {
                    return;
                }
            }
            Err(error @ (CloudError::Throttled { .. } | CloudError::Unknown { .. })) => {
                context.record("launch", group.id, &Outcome::Failed(error.to_string()));
                if !context.pause(backoff).await {
                    return;
                }
                backoff = (backoff * 2).min(MOST_BACKOFF);
            }
        }
    }
}

/// Tells the decider what the class offers now that some of it has run short, before the claims go:
/// what is planned for their pods next must not ask for the same again.
async fn correct<A, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    group: &Group<'_>,
    offers: &Offers,
) {
    let name = group.class.metadata.name.as_deref().unwrap_or_default();
    match context.cloud.instance_types(group.class, context.clock.now()).await {
        Ok(now) => {
            let catalog = Catalog { types: now.types, volume_price: now.volume_price };
            // The decider is gone only when the process ends.
            drop(offers.tell.send(Message::Offers(name.into(), catalog)).await);
        }
        Err(error) => context.record("list_types", name, &Outcome::Failed(error.to_string())),
    }
}

fn order(group: &Group<'_>, generation: u32, count: usize) -> LaunchOrder {
    LaunchOrder {
        class: Arc::clone(group.class),
        pool: Arc::clone(&group.pool.name),
        token: hex(format!("{}/{generation}", group.id), 24),
        count: u32::try_from(count).unwrap_or(u32::MAX),
        options: group
            .options
            .iter()
            .map(|choice| LaunchOption {
                instance_type: Arc::clone(&choice.instance_type),
                zone: Arc::clone(&choice.zone),
                capacity_type: choice.capacity_type,
                reservation: choice.reservation.clone(),
                price: choice.price,
            })
            .collect(),
        priced_by_overlay: group.overlaid,
        labels: group.labels.clone(),
        taints: registration_taints(group.pool),
        requests: group.requests.clone(),
        tags: BTreeMap::from([(GROUP_TAG.to_owned(), group.id.to_owned())]),
    }
}

/// Gives instances to claims; returns the claims that got none. A repeated call answers with all
/// instances of the first, of which some have their claim.
async fn hand_out<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    group: &mut Group<'_>,
    mut waiting: Vec<Waiting>,
    mut instances: Vec<Instance>,
    offers: &Offers,
) -> Vec<Waiting> {
    instances.retain(|instance| !group.taken.contains(&instance.provider_id));
    instances.sort_by(|a, b| a.provider_id.cmp(&b.provider_id));
    let rest = waiting.split_off(waiting.len().min(instances.len()));
    instances.truncate(waiting.len());
    group.taken.extend(instances.iter().map(|instance| Arc::clone(&instance.provider_id)));
    let types = offers.catalogs.of(group.pool).map(|catalog| catalog.types);
    let mut writing: FuturesUnordered<_> = waiting
        .iter()
        .zip(&instances)
        .map(|(claim, instance)| {
            let found = types
                .as_ref()
                .and_then(|types| types.iter().find(|t| t.name == instance.instance_type));
            launched(context, claim, instance, found.map(|found| &**found))
        })
        .collect();
    while writing.next().await.is_some() {}
    rest
}

/// Writes what was launched: labels first, so that no status speaks of a claim without them.
async fn launched<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Waiting,
    instance: &Instance,
    instance_type: Option<&InstanceType>,
) {
    let labels = labels_of(instance, instance_type);
    let status = json!({
        "providerID": &*instance.provider_id,
        "imageID": &*instance.image_id,
        "capacity": instance_type.map(|t| t.capacity.to_quantities()),
        "allocatable": instance_type.map(|t| t.allocatable().to_quantities()),
    });
    let mut backoff = Duration::from_millis(100);
    for _ in 0..ATTEMPTS {
        let labelled =
            context.api.patch_claim(&claim.name, json!({"metadata": {"labels": labels}})).await;
        let result = match labelled {
            Ok(()) => {
                let condition = ConditionUpdate::holds("Launched");
                let now = context.clock.now();
                context
                    .api
                    .update_claim_status(&claim.name, status.clone(), &[condition], now)
                    .await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                context.record("launched", &claim.name, &Outcome::Applied);
                drop(
                    context
                        .cloud
                        .tag(&instance.provider_id, &[("karpenter.sh/nodeclaim", &claim.name)])
                        .await,
                );
                return;
            }
            // The claim is gone: garbage collection ends the instance.
            Err(ApiError::NotFound | ApiError::NotLeading) => return,
            Err(error) => {
                context.record("launched", &claim.name, &Outcome::Failed(error.to_string()));
                if !context.pause(backoff).await {
                    return;
                }
                backoff = (backoff * 2).min(MOST_BACKOFF);
            }
        }
    }
}

fn labels_of(instance: &Instance, instance_type: Option<&InstanceType>) -> Labels {
    let mut all = Labels::new();
    for (key, requirement) in instance_type.iter().flat_map(|t| t.requirements.iter()) {
        if let Some(value) = requirement.single() {
            all.insert(key.to_string(), value.to_string());
        }
    }
    all.insert(labels::INSTANCE_TYPE.to_owned(), instance.instance_type.to_string());
    all.insert(labels::ZONE.to_owned(), instance.zone.to_string());
    if let Some(capacity_type) = instance.capacity_type {
        all.insert(labels::CAPACITY_TYPE.to_owned(), capacity_type.label().to_owned());
    }
    if let Some(reservation) = &instance.reservation {
        let interruptible = reservation.interruptible.to_string();
        all.insert(labels::RESERVATION_ID.to_owned(), reservation.id.to_string());
        all.insert(labels::RESERVATION_TYPE.to_owned(), reservation.type_label().to_owned());
        all.insert(labels::RESERVATION_INTERRUPTIBLE.to_owned(), interruptible);
    }
    all
}

/// Deletes claims for which there was no capacity; their pods are planned again at once.
async fn no_capacity<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    group: &Group<'_>,
    claims: &[Waiting],
    message: &str,
) {
    let reason = "insufficient_capacity";
    for claim in claims {
        let about = About::claim(&claim.name, &claim.uid);
        context.warn(about, "InsufficientCapacityError", message.to_owned()).await;
        let outcome = match context.api.delete_claim(&claim.name, &claim.uid).await {
            Ok(()) | Err(ApiError::NotFound) => Outcome::Applied,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        if outcome == Outcome::Applied {
            let nodepool = group.pool.name.to_string();
            let label = PoolReasonLabel { nodepool, reason: reason.to_owned() };
            context.metrics.claims_disrupted.get_or_create(&label).inc();
        }
        context.record(reason, &claim.name, &outcome);
    }
}

/// The NodeClaim object of a draft, with the digest of its class.
fn object(draft: &ClaimDraft, digest: &Labels) -> Value {
    let mut annotations = draft.annotations.clone();
    annotations.extend(digest.clone());
    let mut requirements: Vec<Value> = Vec::new();
    for expression in draft.requirements.to_expressions() {
        // The pool's own label is restricted in requirements and stands in the labels.
        if expression.key != labels::NODEPOOL {
            requirements.push(json!(expression));
        }
    }
    let seconds = |seconds: i64| format!("{seconds}s");
    let mut spec = json!({
        "nodeClassRef": {"group": &*draft.class.group, "kind": &*draft.class.kind, "name": &*draft.class.name},
        "requirements": requirements,
        "resources": {"requests": draft.requests.to_quantities()},
        "taints": draft.pool.taints,
        "startupTaints": draft.pool.startup_taints,
        "expireAfter": draft.pool.expire_after.map_or_else(|| "Never".to_owned(), seconds),
    });
    if let Some(grace) = draft.pool.termination_grace {
        spec["terminationGracePeriod"] = json!(seconds(grace));
    }
    let mut metadata = json!({
        "name": &*draft.name,
        "labels": draft.labels,
        "annotations": annotations,
        "finalizers": ["karpenter.sh/termination"],
    });
    if !draft.pool.uid.is_empty() {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "name": &*draft.pool.name,
            "uid": &*draft.pool.uid, "blockOwnerDeletion": true,
        }]);
    }
    json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": metadata, "spec": spec})
}
