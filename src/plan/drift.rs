//! Whether what a claim was made from has changed since.

use crate::model::claim::{Claim, ClaimStage};
use crate::model::labels::{self, Labels};
use crate::model::node::Node;
use crate::model::pool::{ClassFacts, Pool};

/// Annotation: digest of the pool's template.
pub const NODEPOOL_HASH: &str = "karpenter.sh/nodepool-hash";
/// Annotation: how that is made.
pub const NODEPOOL_HASH_VERSION: &str = "karpenter.sh/nodepool-hash-version";
/// Annotation: digest of the class.
pub const EC2NODECLASS_HASH: &str = "karpenter.k8s.aws/ec2nodeclass-hash";
/// Annotation: how that is made.
pub const EC2NODECLASS_HASH_VERSION: &str = "karpenter.k8s.aws/ec2nodeclass-hash-version";
/// How we make digests. Another autoscaler's digest of the same pool is another one.
pub const HASH_VERSION: &str = "harbinger-1";

/// The pool's template is another one, its requirements aside.
pub const NODE_POOL: &str = "NodePoolDrifted";
/// The node is none that the pool's requirements allow now.
pub const REQUIREMENTS: &str = "RequirementsDrifted";
/// The class is another one, its selectors aside.
pub const NODE_CLASS: &str = "NodeClassDrift";
/// The class has other images now.
pub const IMAGE: &str = "AMIDrift";
/// The class does not select the reservation any more.
pub const RESERVATION: &str = "CapacityReservationDrift";

/// The annotations of a claim that is made with a class.
pub fn class_digest(class: &ClassFacts) -> Labels {
    digest(EC2NODECLASS_HASH, EC2NODECLASS_HASH_VERSION, &class.hash)
}

/// The annotations of a claim that is made from a pool.
pub fn pool_digest(pool: &Pool) -> Labels {
    digest(NODEPOOL_HASH, NODEPOOL_HASH_VERSION, &pool.hash)
}

fn digest(hash: &str, version: &str, value: &str) -> Labels {
    Labels::from([
        (hash.to_owned(), value.to_owned()),
        (version.to_owned(), HASH_VERSION.to_owned()),
    ])
}

/// Why a claim does not match what it was made from any more: the first reason in the field's order.
/// None where it does, has no instance yet, or its pool or class is not there.
pub fn drifted(
    claim: &Claim,
    node: Option<&Node>,
    pool: Option<&Pool>,
    class: Option<&ClassFacts>,
) -> Option<&'static str> {
    let (pool, class) = (pool?, class?);
    if claim.stage == ClaimStage::Pending {
        return None;
    }
    // Digests that were made in different ways say nothing of what was digested.
    let differs = |hash: &str, version: &str, now: &str| {
        claim.annotations.get(version).is_some_and(|version| version == HASH_VERSION)
            && claim.annotations.get(hash).is_some_and(|hash| hash != now)
    };
    if differs(NODEPOOL_HASH, NODEPOOL_HASH_VERSION, &pool.hash) {
        return Some(NODE_POOL);
    }
    let out = pool.requirements.iter().any(|(key, requirement)| {
        let label = claim.label(key).or_else(|| node.and_then(|node| node.label(key)));
        // Some labels only the node itself has, such as its operating system, and of those that
        // providers set some may be missing.
        let told = node.is_some() && !labels::is_well_known(key);
        label.map_or(told && !requirement.allows_absent(), |value| !requirement.allows(value))
    });
    if out {
        return Some(REQUIREMENTS);
    }
    if differs(EC2NODECLASS_HASH, EC2NODECLASS_HASH_VERSION, &class.hash) {
        return Some(NODE_CLASS);
    }
    let found = class.found.as_ref()?;
    if !claim.image.is_empty() && !found.images.contains(&*claim.image) {
        return Some(IMAGE);
    }
    let reservation = claim.label(labels::RESERVATION_ID);
    reservation.is_some_and(|id| !found.reservations.contains(id)).then_some(RESERVATION)
}

/// The annotations that a claim takes on whose digests were made in another way, so that no node
/// drifts by that alone. Digests of a claim that has drifted stay: new ones would hide that.
pub fn adopted(claim: &Claim, pool: Option<&Pool>, class: Option<&ClassFacts>) -> Option<Labels> {
    let mut taken = Labels::new();
    let digests = [
        (NODEPOOL_HASH, NODEPOOL_HASH_VERSION, pool.map(pool_digest)),
        (EC2NODECLASS_HASH, EC2NODECLASS_HASH_VERSION, class.map(class_digest)),
    ];
    for (hash, version, digest) in digests {
        let ours = claim.annotations.get(version).is_some_and(|version| version == HASH_VERSION);
        let Some(mut digest) = digest.filter(|_| !ours) else { continue };
        if claim.drifted.is_some() {
            digest.remove(hash);
        }
        taken.extend(digest);
    }
    (!taken.is_empty()).then_some(taken)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::project;
    use crate::model::requirement::Requirement;

    fn pool(requirements: &[(&str, Requirement)]) -> Pool {
        let mut pool = Pool { hash: "now".into(), ..Pool::default() };
        for (key, requirement) in requirements {
            pool.requirements.insert(key, requirement.clone());
        }
        pool
    }

    fn class(change: impl FnOnce(&mut Value)) -> ClassFacts {
        let term = json!([{"tags": {"a": "b"}}]);
        let mut object = json!({
            "metadata": {"name": "c"},
            "spec": {
                "role": "r", "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "subnetSelectorTerms": term, "securityGroupSelectorTerms": term,
            },
            "status": {
                "amis": [{"id": "ami-1", "requirements": []}],
                "conditions": [{
                    "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        });
        change(&mut object);
        object["apiVersion"] = "karpenter.k8s.aws/v1".into();
        object["kind"] = "EC2NodeClass".into();
        project::class(&serde_json::from_value(object).unwrap())
    }

    fn claim(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Claim {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Claim {
            stage: ClaimStage::Launched,
            labels: map(labels),
            annotations: map(annotations),
            image: "ami-1".into(),
            ..Claim::default()
        }
    }

    fn of_pool(claim: &Claim, node: Option<&Node>, pool: &Pool) -> Option<&'static str> {
        drifted(claim, node, Some(pool), Some(&class(|_| {})))
    }

    #[test]
    fn the_template_counts_where_digests_can_be_compared() {
        let of = |annotations: &[(&str, &str)]| of_pool(&claim(&[], annotations), None, &pool(&[]));
        let ours = (NODEPOOL_HASH_VERSION, HASH_VERSION);
        assert_eq!(of(&[(NODEPOOL_HASH, "then"), ours]), Some(NODE_POOL));
        assert_eq!(of(&[(NODEPOOL_HASH, "now"), ours]), None);
        assert_eq!(of(&[(NODEPOOL_HASH, "then"), (NODEPOOL_HASH_VERSION, "v3")]), None);
        assert_eq!(of(&[(NODEPOOL_HASH, "then")]), None);
        assert_eq!(of(&[ours]), None);
        let mut old = claim(&[], &[(NODEPOOL_HASH, "then"), ours]);
        assert_eq!(drifted(&old, None, Some(&pool(&[])), None), None, "its class is gone");
        assert_eq!(drifted(&old, None, None, Some(&class(|_| {}))), None, "its pool is gone");
        old.stage = ClaimStage::Pending;
        assert_eq!(of_pool(&old, None, &pool(&[])), None, "nothing is launched");
    }

    #[test]
    fn a_node_must_be_one_that_the_pool_allows() {
        let zone = "topology.kubernetes.io/zone";
        let of = |claim: &Claim, node: Option<&Node>, key: &str, requirement: Requirement| {
            of_pool(claim, node, &pool(&[(key, requirement)]))
        };
        let here = claim(&[(zone, "a")], &[]);
        assert_eq!(of(&here, None, zone, Requirement::one_of(["a", "b"])), None);
        assert_eq!(of(&here, None, zone, Requirement::one_of(["b"])), Some(REQUIREMENTS));
        assert_eq!(of(&here, None, zone, Requirement::none_of(["a"])), Some(REQUIREMENTS));
        // What the claim does not say, its node may.
        let mut node = Node::default();
        let os = Requirement::one_of(["linux"]);
        assert_eq!(of(&here, Some(&node), "kubernetes.io/os", os), None, "nobody said so");
        let rack = || Requirement::one_of(["r1"]);
        assert_eq!(of(&here, None, "rack", rack()), None);
        assert_eq!(of(&here, Some(&node), "rack", rack()), Some(REQUIREMENTS));
        assert_eq!(of(&here, Some(&node), "rack", Requirement::none_of(["r1"])), None);
        node.labels.insert("rack".to_owned(), "r1".to_owned());
        assert_eq!(of(&here, Some(&node), "rack", rack()), None);
    }

    #[test]
    fn the_class_counts_without_its_selectors() {
        let mut made = claim(&[], &[]);
        made.annotations = class_digest(&class(|_| {}));
        let of = |claim: &Claim, change: fn(&mut Value)| {
            drifted(claim, None, Some(&pool(&[])), Some(&class(change)))
        };
        assert_eq!(of(&made, |_| {}), None);
        assert_eq!(of(&made, |o| o["spec"]["userData"] = "x".into()), Some(NODE_CLASS));
        assert_eq!(of(&made, |o| o["spec"]["role"] = "other".into()), Some(NODE_CLASS));
        let selectors: fn(&mut Value) = |o| {
            o["spec"]["subnetSelectorTerms"] = json!([{"id": "subnet-1"}]);
            o["spec"]["amiFamily"] = "AL2023".into();
            o["spec"]["ipPrefixCount"] = 3.into();
        };
        assert_eq!(of(&made, selectors), None);
        let mut foreign = made.clone();
        foreign.annotations.insert(EC2NODECLASS_HASH_VERSION.to_owned(), "v6".to_owned());
        assert_eq!(of(&foreign, |o| o["spec"]["userData"] = "x".into()), None);
    }

    #[test]
    fn what_the_class_finds_counts() {
        let of = |claim: &Claim, change: fn(&mut Value)| {
            drifted(claim, None, Some(&pool(&[])), Some(&class(change)))
        };
        let other: fn(&mut Value) = |o| o["status"]["amis"][0]["id"] = "ami-2".into();
        let unresolved: fn(&mut Value) = |o| {
            o["status"]["amis"] = json!([]);
            o["status"]["conditions"][0]["status"] = "False".into();
        };
        let mut made = claim(&[], &[]);
        assert_eq!(of(&made, other), Some(IMAGE));
        assert_eq!(of(&made, unresolved), None, "nobody knows");
        made.image = "".into();
        assert_eq!(of(&made, other), None);
        let reserved = claim(&[(labels::RESERVATION_ID, "cr-1")], &[]);
        assert_eq!(of(&reserved, |_| {}), Some(RESERVATION));
        let selected: fn(&mut Value) = |o| {
            o["status"]["capacityReservations"] = json!([{
                "id": "cr-1", "availabilityZone": "a", "instanceMatchCriteria": "open",
                "instanceType": "m5.large", "ownerID": "123456789012",
            }]);
        };
        assert_eq!(of(&reserved, selected), None);
    }

    #[test]
    fn digests_made_in_another_way_are_taken_on() {
        let (pool, class) = (pool(&[]), class(|_| {}));
        let taken = |claim: &Claim| adopted(claim, Some(&pool), Some(&class));
        let mut old = claim(&[], &[(NODEPOOL_HASH, "then"), (NODEPOOL_HASH_VERSION, "v3")]);
        let mut both = pool_digest(&pool);
        both.extend(class_digest(&class));
        assert_eq!(taken(&old), Some(both.clone()));
        assert_eq!(adopted(&old, Some(&pool), None), Some(pool_digest(&pool)));
        old.drifted = Some(NODE_POOL.into());
        let versions = taken(&old).unwrap();
        let keys: Vec<&String> = versions.keys().collect();
        assert_eq!(keys, [EC2NODECLASS_HASH_VERSION, NODEPOOL_HASH_VERSION]);
        old.annotations = both;
        assert_eq!(taken(&old), None);
    }
}
