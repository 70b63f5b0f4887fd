//! The Node object that a kubelet on EC2 registers.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::super::Instance;
use super::super::machine::Sizes;
use super::super::user_data::Registration;

/// Labels of Kubernetes' own domains that a kubelet may set on its node; with any other it does not
/// start. Subdomains of the first two are allowed whole.
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "node.kubernetes.io/windows-build",
];

/// The node at registration: not ready, with the labels and taints of its user data.
pub(super) fn describe(
    instance: &Instance,
    zone_id: &str,
    region: &str,
    registration: &Registration,
    sizes: &Sizes,
) -> Result<Node> {
    let arch = if instance.architecture == "arm64" { "arm64" } else { "amd64" };
    let mut labels = json!({
        "kubernetes.io/hostname": instance.private_dns_name,
        "kubernetes.io/arch": arch,
        "kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/instance-type": instance.instance_type,
        "node.kubernetes.io/instance-type": instance.instance_type,
        "topology.kubernetes.io/region": region,
        "topology.kubernetes.io/zone": instance.zone,
        "failure-domain.beta.kubernetes.io/region": region,
        "failure-domain.beta.kubernetes.io/zone": instance.zone,
        "topology.k8s.aws/zone-id": zone_id,
    });
    for (key, value) in &registration.labels {
        ensure!(kubelet_may_set(key), "a kubelet does not start with the label {key}");
        labels[key] = json!(value);
    }
    let mut taints: Vec<Value> = registration
        .taints
        .iter()
        .map(|taint| json!({ "key": taint.key, "value": taint.value, "effect": taint.effect }))
        .collect();
    if !registration.understood {
        taints.push(json!({ "key": "karpenter.sh/unregistered", "effect": "NoExecute" }));
    }
    let node = json!({
        "metadata": {
            "name": instance.private_dns_name,
            "labels": labels,
            "annotations": {
                "kwok.x-k8s.io/node": "fake",
                // One kwok answers for all kubelets.
                "metrics.k8s.io/resource-metrics-path":
                    format!("/metrics/nodes/{}/metrics/resource", instance.private_dns_name),
            },
        },
        "spec": {
            "providerID": format!("aws:///{}/{}", instance.zone, instance.id),
            "taints": taints,
        },
        "status": {
            "capacity": sizes.capacity,
            "allocatable": sizes.allocatable,
            "addresses": [
                { "type": "InternalIP", "address": instance.private_ip },
                { "type": "ExternalIP", "address": "127.0.0.1" },
                { "type": "InternalDNS", "address": instance.private_dns_name },
                { "type": "Hostname", "address": instance.private_dns_name },
            ],
            "conditions": [condition("False", "KubeletNotReady", "container runtime network not ready")],
            "nodeInfo": {
                "architecture": arch,
                "bootID": instance.id,
                "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.46-66.121.amzn2023",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.37.2-eks-1-37-2",
                "machineID": instance.id,
                "operatingSystem": "linux",
                "osImage": "Amazon Linux 2023",
                "systemUUID": instance.id,
            },
        },
    });
    Ok(serde_json::from_value(node)?)
}

/// The status patch of a kubelet that has become ready.
pub(super) fn ready_status() -> Value {
    json!({ "status": { "conditions": [condition("True", "KubeletReady", "kubelet is posting ready status")] } })
}

fn condition(status: &str, reason: &str, message: &str) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    })
}

fn kubelet_may_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let inside = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    let reserved = inside("kubernetes.io") || inside("k8s.io");
    !reserved || KUBELET_LABELS.contains(&label) || KUBELET_DOMAINS.iter().any(|of| inside(of))
}

#[cfg(test)]
mod tests {
    use super::kubelet_may_set;

    #[test]
    fn a_kubelet_sets_no_labels_of_the_control_plane() {
        for (label, may) in [
            ("team", true),
            ("karpenter.sh/nodepool", true),
            ("node.kubernetes.io/anything", true),
            ("topology.kubernetes.io/zone", true),
            ("topology.k8s.aws/zone-id", true),
            ("node-role.kubernetes.io/worker", false),
            ("kubernetes.io/cluster", false),
        ] {
            assert_eq!(kubelet_may_set(label), may, "{label}");
        }
    }
}
