//! AL2: a script that calls the image's own bootstrap script.

use super::mime::{self, Part};
use super::{Node, UserDataError};

pub(super) fn text(node: &Node<'_>) -> Result<String, UserDataError> {
    let mut parts = match node.custom {
        None => Vec::new(),
        Some(text) if text.trim().is_empty() => Vec::new(),
        Some(text) => mime::read(text)
            .unwrap_or_else(|| vec![Part::new(mime::SCRIPT, &text.replace('\r', ""))]),
    };
    parts.push(Part::new(mime::SCRIPT, &script(node)?));
    Ok(mime::write(&parts))
}

fn script(node: &Node<'_>) -> Result<String, UserDataError> {
    let cluster = node.cluster;
    let mut arguments = vec![
        quoted(&cluster.cluster_name)?,
        format!("--apiserver-endpoint {}", quoted(&cluster.cluster_endpoint)?),
    ];
    if !cluster.ca_bundle.is_empty() {
        arguments.push(format!("--b64-cluster-ca {}", quoted(&cluster.ca_bundle)?));
    }
    if let Some(dns) = node.dns().first() {
        arguments.push(format!("--dns-cluster-ip {}", quoted(dns)?));
    }
    arguments.push("--use-max-pods false".to_owned());
    arguments.push(format!("--kubelet-extra-args {}", quoted(&kubelet_arguments(node))?));
    if node.raid0 {
        arguments.push("--local-disks raid0".to_owned());
    }
    Ok(format!(
        "#!/bin/bash -xe\nexec > >(tee /var/log/user-data.log|logger -t user-data -s 2>/dev/console) 2>&1\n/etc/eks/bootstrap.sh {}\n",
        arguments.join(" ")
    ))
}

/// A word of the shell in single quotes.
fn quoted(text: &str) -> Result<String, UserDataError> {
    if text.contains('\'') {
        return Err(UserDataError::invalid(format!("{text:?} may not contain a single quote")));
    }
    Ok(format!("'{text}'"))
}

/// Flags of the kubelet that depend on the node.
pub(super) fn kubelet_arguments(node: &Node<'_>) -> String {
    let mut arguments = vec![format!("--node-labels=\"{}\"", node.label_flag())];
    if !node.taints.is_empty() {
        let taints: Vec<String> = node
            .taints
            .iter()
            .map(|taint| format!("{}={}:{}", taint.key, taint.value, taint.effect))
            .collect();
        arguments.push(format!("--register-with-taints=\"{}\"", taints.join(",")));
    }
    arguments.push(format!("--max-pods={}", node.max_pods));
    if let Some(pods) = node.scalar("podsPerCore") {
        arguments.push(format!("--pods-per-core={pods}"));
    }
    for (flag, field, sign) in [
        ("system-reserved", "systemReserved", "="),
        ("kube-reserved", "kubeReserved", "="),
        ("eviction-hard", "evictionHard", "<"),
        ("eviction-soft", "evictionSoft", "<"),
        ("eviction-soft-grace-period", "evictionSoftGracePeriod", "="),
    ] {
        let map = node.map(field);
        if !map.is_empty() {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}{sign}{value}")).collect();
            arguments.push(format!("--{flag}=\"{}\"", pairs.join(",")));
        }
    }
    for (flag, field) in [
        ("eviction-max-pod-grace-period", "evictionMaxPodGracePeriod"),
        ("image-gc-high-threshold", "imageGCHighThresholdPercent"),
        ("image-gc-low-threshold", "imageGCLowThresholdPercent"),
        ("cpu-cfs-quota", "cpuCFSQuota"),
    ] {
        if let Some(value) = node.scalar(field) {
            arguments.push(format!("--{flag}={value}"));
        }
    }
    arguments.join(" ")
}
