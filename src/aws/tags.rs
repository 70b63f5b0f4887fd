//! Tags: how we know what is ours.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};

use crate::api::ec2nodeclass::EC2NodeClass;

/// Pool of an instance.
pub(super) const POOL: &str = "karpenter.sh/nodepool";
/// Class of an instance.
pub(super) const CLASS: &str = "karpenter.k8s.aws/ec2nodeclass";
/// Cluster of an instance, as EKS spells it.
pub(super) const CLUSTER_NAME: &str = "eks:eks-cluster-name";

/// Tag key that says that the cluster owns something.
pub(super) fn owned(cluster: &str) -> String {
    format!("kubernetes.io/cluster/{cluster}")
}

/// Tags of everything that is made for a class and a pool: the class's own, then those that always
/// hold.
pub(super) fn of_class(
    class: &EC2NodeClass,
    cluster: &str,
    pool: Option<&str>,
) -> BTreeMap<String, String> {
    let mut tags = class.spec.tags.clone();
    tags.insert(owned(cluster), "owned".to_owned());
    tags.insert(CLUSTER_NAME.to_owned(), cluster.to_owned());
    tags.insert(CLASS.to_owned(), class.metadata.name.clone().unwrap_or_default());
    if let Some(pool) = pool {
        tags.insert(POOL.to_owned(), pool.to_owned());
    }
    tags
}

/// Tags in the SDK's form.
pub(super) fn list(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// Tags for a kind of resource that a call makes.
pub(super) fn specification(
    kind: ResourceType,
    tags: &BTreeMap<String, String>,
) -> TagSpecification {
    TagSpecification::builder().resource_type(kind).set_tags(Some(list(tags))).build()
}
