//! User data: what turns an image into a node of this cluster.
//!
//! Each family has its own format. What the user wrote is kept; where it and the generated part set
//! the same thing, the generated part wins, since the node would not join otherwise. Everything is
//! written in a fixed order, so that equal input gives equal text.

mod al2;
mod al2023;
mod bottlerocket;
mod mime;
mod windows;

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Settings;
use crate::api::ec2nodeclass::AmiFamily;
use crate::cloud::kubelet::Kubelet;
use crate::model::labels::{self, Labels};
use crate::model::taints::Taint;

/// EC2 takes no more user data than this, in bytes before base64.
const LIMIT: usize = 16_384;

/// What goes into the user data of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    /// The cluster.
    pub(super) cluster: &'a Settings,
    /// Family of the image.
    pub(super) family: AmiFamily,
    /// Kubelet settings of the class.
    pub(super) kubelet: &'a Kubelet,
    /// Pods that the node takes.
    pub(super) max_pods: i64,
    /// Labels that the node registers with; those that a kubelet may not set are left out here.
    pub(super) labels: &'a Labels,
    /// Taints that the node registers with.
    pub(super) taints: &'a [Taint],
    /// Whether instance stores become the pods' disk.
    pub(super) raid0: bool,
    /// What the user wrote.
    pub(super) custom: Option<&'a str>,
}

/// Why there is no user data: condition reason and message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(super) struct UserDataError {
    /// Reason of the class's condition.
    pub(super) reason: &'static str,
    /// What is wrong.
    pub(super) message: String,
}

impl UserDataError {
    fn invalid(message: impl Into<String>) -> Self {
        Self { reason: "InvalidUserData", message: message.into() }
    }
}

impl Node<'_> {
    /// The user data in base64, as EC2 takes it.
    ///
    /// # Errors
    /// When the user's part cannot be merged, or the whole is too long.
    pub(super) fn user_data(&self) -> Result<String, UserDataError> {
        let text = self.text()?;
        if text.len() > LIMIT {
            return Err(UserDataError {
                reason: "UserDataSizeLimitExceeded",
                message: format!(
                    "user data has {} bytes, but EC2 takes {LIMIT}; shorten spec.userData",
                    text.len()
                ),
            });
        }
        Ok(BASE64_STANDARD.encode(text))
    }

    fn text(&self) -> Result<String, UserDataError> {
        match self.family {
            AmiFamily::AL2023 => al2023::text(self),
            AmiFamily::AL2 => al2::text(self),
            AmiFamily::Bottlerocket => bottlerocket::text(self),
            AmiFamily::Custom => Ok(self.custom.unwrap_or_default().to_owned()),
            AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => {
                windows::text(self)
            }
        }
    }

    /// Labels that a kubelet may set itself, sorted. The API server refuses a node that claims
    /// labels of Kubernetes' own domains; those are added when the node has registered.
    fn own_labels(&self) -> BTreeMap<&str, &str> {
        let reserved = |key: &str| {
            let domain = key.split_once('/').map_or("", |(domain, _)| domain);
            ["kubernetes.io", "k8s.io", "node-restriction.kubernetes.io"].iter().any(|base| {
                domain == *base || domain.strip_suffix(base).is_some_and(|d| d.ends_with('.'))
            })
        };
        let mut own: BTreeMap<&str, &str> = self
            .labels
            .iter()
            .filter(|(key, _)| !reserved(key))
            .map(|(key, value)| (&**key, &**value))
            .collect();
        // The node has its taints from the start; nobody needs to add them again.
        own.insert(labels::DO_NOT_SYNC_TAINTS, "true");
        own
    }

    /// The labels as the kubelet's flag takes them.
    fn label_flag(&self) -> String {
        let pairs: Vec<String> =
            self.own_labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }

    /// Addresses of the cluster's DNS: the class's, else the cluster's.
    fn dns(&self) -> Vec<&str> {
        if self.kubelet.cluster_dns.is_empty() {
            self.cluster.cluster_dns.iter().map(String::as_str).collect()
        } else {
            self.kubelet.cluster_dns.iter().map(String::as_str).collect()
        }
    }

    /// An object of texts in the class's kubelet block, sorted.
    fn map(&self, field: &str) -> BTreeMap<&str, String> {
        let entries = self.kubelet.raw.get(field).and_then(serde_json::Value::as_object);
        entries
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                (&**key, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect()
    }

    /// A number or truth value in the class's kubelet block.
    fn scalar(&self, field: &str) -> Option<String> {
        let value = self.kubelet.raw.get(field)?;
        (value.is_number() || value.is_boolean()).then(|| value.to_string())
    }
}

/// The labels of an order with the capacity type, which a launch template fixes.
pub(super) fn with_capacity_type(order: &Labels, capacity_type: &str) -> Labels {
    let mut all = order.clone();
    all.insert(labels::CAPACITY_TYPE.to_owned(), capacity_type.to_owned());
    all
}

#[cfg(test)]
mod tests;
