//! Status conditions, as the Karpenter API writes them: the reason may be absent.
//!
//! The moment of the last transition changes only when the status does. The clock is an argument.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The root condition: all the conditions it depends on are true.
pub const READY: &str = "Ready";

/// NodeClaim: the instance was asked for and exists.
pub const LAUNCHED: &str = "Launched";
/// NodeClaim: the node joined the cluster.
pub const REGISTERED: &str = "Registered";
/// NodeClaim: the node is ready and its startup taints and resources are as expected.
pub const INITIALIZED: &str = "Initialized";
/// NodeClaim: consolidation may take the node.
pub const CONSOLIDATABLE: &str = "Consolidatable";
/// NodeClaim: the node no longer matches its pool or its class.
pub const DRIFTED: &str = "Drifted";
/// NodeClaim: no pod is left that has to leave.
pub const DRAINED: &str = "Drained";
/// NodeClaim: no volume is attached any more.
pub const VOLUMES_DETACHED: &str = "VolumesDetached";
/// NodeClaim: the cloud was asked to end the instance.
pub const INSTANCE_TERMINATING: &str = "InstanceTerminating";
/// NodeClaim: the node has the shape that was expected.
pub const CONSISTENT_STATE_FOUND: &str = "ConsistentStateFound";
/// NodeClaim: why the node is being ended.
pub const DISRUPTION_REASON: &str = "DisruptionReason";

/// `NodePool`, `NodeOverlay`, `EC2NodeClass`, `RequestPolicy`: the object passed the run-time
/// validation.
pub const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
/// NodePool: the referenced class exists and is ready.
pub const NODE_CLASS_READY: &str = "NodeClassReady";
/// NodePool: recent nodes registered in time. Does not feed Ready.
pub const NODE_REGISTRATION_HEALTHY: &str = "NodeRegistrationHealthy";

/// `EC2NodeClass`: the image selector found images.
pub const AMIS_READY: &str = "AMIsReady";
/// `EC2NodeClass`: the subnet selector found subnets.
pub const SUBNETS_READY: &str = "SubnetsReady";
/// `EC2NodeClass`: the security group selector found groups.
pub const SECURITY_GROUPS_READY: &str = "SecurityGroupsReady";
/// `EC2NodeClass`: the instance profile exists.
pub const INSTANCE_PROFILE_READY: &str = "InstanceProfileReady";
/// `EC2NodeClass`: the placement group exists, or none is asked for.
pub const PLACEMENT_GROUP_READY: &str = "PlacementGroupReady";
/// `EC2NodeClass`: capacity reservations were resolved.
pub const CAPACITY_RESERVATIONS_READY: &str = "CapacityReservationsReady";

/// What a NodeClaim's root condition depends on.
pub const NODE_CLAIM_ROOT: &[&str] = &[LAUNCHED, REGISTERED, INITIALIZED];
/// What a NodePool's root condition depends on.
pub const NODE_POOL_ROOT: &[&str] = &[VALIDATION_SUCCEEDED, NODE_CLASS_READY];
/// What a NodeOverlay's root condition depends on.
pub const NODE_OVERLAY_ROOT: &[&str] = &[VALIDATION_SUCCEEDED];
/// What an `EC2NodeClass`'s root condition depends on.
pub const EC2_NODE_CLASS_ROOT: &[&str] = &[
    AMIS_READY,
    SUBNETS_READY,
    SECURITY_GROUPS_READY,
    INSTANCE_PROFILE_READY,
    PLACEMENT_GROUP_READY,
    VALIDATION_SUCCEEDED,
];

/// The three values of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known yet.
    Unknown,
}

/// One aspect of an object's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the condition, unique within the object.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// When the status last changed.
    pub last_transition_time: Time,
    /// One word in CamelCase that says why; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub message: String,
    /// The generation of the object that the condition was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

/// The condition of this type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition exists and is true.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == ConditionStatus::True)
}

/// What to write into a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// Name of the condition.
    pub type_: &'a str,
    /// Its status.
    pub status: ConditionStatus,
    /// One word in CamelCase; empty for none.
    pub reason: &'a str,
    /// A sentence; empty for none.
    pub message: &'a str,
    /// The generation it was computed from.
    pub generation: Option<i64>,
}

/// Writes a condition in place, or adds it at the end. Returns whether anything changed.
/// The transition time is kept while the status stays the same; `now` is cut to whole seconds, as the API stores it.
pub fn set(conditions: &mut Vec<Condition>, update: Update<'_>, now: Timestamp) -> bool {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let old = conditions.iter_mut().find(|c| c.type_ == update.type_);
    let last_transition_time = match &old {
        Some(old) if old.status == update.status => old.last_transition_time.clone(),
        _ => now,
    };
    let new = Condition {
        type_: update.type_.to_owned(),
        status: update.status,
        last_transition_time,
        reason: update.reason.to_owned(),
        message: update.message.to_owned(),
        observed_generation: update.generation,
    };
    match old {
        Some(old) if *old == new => false,
        Some(old) => {
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// Computes the root condition from its parts: false when one is false, else unknown when one is unknown or absent.
/// Returns whether anything changed.
pub fn set_root(
    conditions: &mut Vec<Condition>,
    parts: &[&str],
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let status = |part: &&str| get(conditions, part).map_or(ConditionStatus::Unknown, |c| c.status);
    let worst = [ConditionStatus::False, ConditionStatus::Unknown]
        .into_iter()
        .find(|s| parts.iter().any(|part| status(part) == *s));
    let (status, reason, message) = match worst {
        None => (ConditionStatus::True, READY, String::new()),
        Some(worst) => {
            let names: Vec<&str> =
                parts.iter().copied().filter(|part| status(part) == worst).collect();
            let reason = if worst == ConditionStatus::False {
                "UnhealthyDependents"
            } else {
                "ReconcilingDependents"
            };
            (worst, reason, format!("{}={worst:?}", names.join(", ")))
        }
    };
    let update = Update { type_: READY, status, reason, message: &message, generation };
    set(conditions, update, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn update(
        type_: &'static str,
        status: ConditionStatus,
        reason: &'static str,
    ) -> Update<'static> {
        Update { type_, status, reason, message: "", generation: None }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut list = Vec::new();
        assert!(set(&mut list, update(LAUNCHED, ConditionStatus::Unknown, "Waiting"), at(10)));
        assert!(!set(&mut list, update(LAUNCHED, ConditionStatus::Unknown, "Waiting"), at(20)));
        assert!(set(&mut list, update(LAUNCHED, ConditionStatus::Unknown, "Throttled"), at(30)));
        assert_eq!(list[0].last_transition_time, Time(at(10)));
        assert!(set(&mut list, update(LAUNCHED, ConditionStatus::True, ""), at(40)));
        assert_eq!(list[0].last_transition_time, Time(at(40)));
        assert!(is_true(&list, LAUNCHED));
        assert!(!is_true(&list, REGISTERED));
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn the_root_follows_the_worst_part() {
        let mut list = Vec::new();
        let root = |list: &mut Vec<Condition>| {
            set_root(list, NODE_CLAIM_ROOT, Some(3), at(1));
            get(list, READY).cloned().unwrap()
        };
        assert_eq!(root(&mut list).status, ConditionStatus::Unknown);
        set(&mut list, update(LAUNCHED, ConditionStatus::False, "LaunchFailed"), at(1));
        let ready = root(&mut list);
        assert_eq!(
            (ready.status, ready.message.as_str()),
            (ConditionStatus::False, "Launched=False")
        );
        for part in NODE_CLAIM_ROOT {
            set(&mut list, update(part, ConditionStatus::True, ""), at(2));
        }
        let ready = root(&mut list);
        assert_eq!((ready.status, ready.observed_generation), (ConditionStatus::True, Some(3)));
    }

    #[test]
    fn a_condition_survives_the_wire() {
        let mut list = Vec::new();
        let now: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        set(&mut list, update(READY, ConditionStatus::True, ""), now);
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(
            text,
            r#"[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z"}]"#
        );
        assert_eq!(serde_json::from_str::<Vec<Condition>>(&text).unwrap(), list);
    }
}
