//! Whether webhooks stand between the cluster and what it needs to start.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::hooks::Hook;
use super::{Finding, Installation};

/// Parts of names of the agents that give pods their network.
const NETWORK: &[&str] = &[
    "antrea",
    "aws-node",
    "calico",
    "canal",
    "cilium",
    "flannel",
    "kube-proxy",
    "kube-router",
    "kindnet",
    "ovnkube",
    "weave",
];

/// Pods without which nothing else starts.
struct Vital {
    what: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}

pub(super) fn findings(installation: &Installation, all: &[Hook]) -> Vec<Finding> {
    let vital = vital(installation);
    let mut findings = Vec::new();
    for hook in all {
        let covered: Vec<&str> = vital
            .iter()
            .filter(|pods| {
                let namespace = installation.namespaces.get(&pods.namespace);
                namespace.is_some_and(|labels| hook.asked_of_pods(labels, &pods.labels))
            })
            .map(|pods| &*pods.what)
            .collect();
        if covered.is_empty() {
            continue;
        }
        let covered = covered.join(", ");
        match (hook.is_ours(), hook.fails) {
            (true, true) => findings.push(Finding::error(
                "scope",
                format!(
                    "{} refuses pods when it cannot be asked, and these are in its scope: {covered}. \
                     After an outage of all replicas neither they nor the webhook come back",
                    hook.title()
                ),
                "add their namespaces to webhook.excludedNamespaces, and keep webhook.failurePolicy \
                 at Ignore",
            )),
            (true, false) => findings.push(Finding::warning(
                "scope",
                format!(
                    "{} is asked about {covered}: while it is down each of these pods waits {} s",
                    hook.title(),
                    hook.timeout
                ),
                "add their namespaces to webhook.excludedNamespaces",
            )),
            // A webhook of somebody else that can keep ours from starting.
            (false, true) => findings.push(Finding::warning(
                "scope",
                format!(
                    "{} of another program refuses pods when it cannot be asked, and these are in \
                     its scope: {covered}",
                    hook.title()
                ),
                "exclude these namespaces in its namespaceSelector",
            )),
            (false, false) => {}
        }
    }
    if findings.is_empty() {
        let names: Vec<&str> = vital.iter().map(|pods| &*pods.what).collect();
        findings.push(Finding::fine("scope", format!("out of scope: {}", names.join(", "))));
    }
    findings
}

fn vital(installation: &Installation) -> Vec<Vital> {
    let mut vital = Vec::new();
    let mut add = |role: &str, name: &str, namespace: &str, template: &PodTemplateSpec| {
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        vital.push(Vital {
            what: format!("{namespace}/{name} ({role})"),
            namespace: namespace.to_owned(),
            labels: labels.unwrap_or_default(),
        });
    };
    for daemons in &installation.daemon_sets {
        let name = daemons.metadata.name.as_deref().unwrap_or_default();
        let namespace = daemons.metadata.namespace.as_deref().unwrap_or_default();
        let template = &daemons.spec.template;
        let spec = template.spec.as_ref();
        let known = NETWORK.iter().any(|part| name.contains(part));
        let critical = spec.is_some_and(|spec| {
            spec.host_network == Some(true)
                && spec.priority_class_name.as_deref() == Some("system-node-critical")
        });
        if known || critical {
            add("network", name, namespace, template);
        }
    }
    for deployment in &installation.deployments {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let labels = deployment.metadata.labels.as_ref();
        let dns =
            labels.and_then(|labels| labels.get("k8s-app")).is_some_and(|app| app == "kube-dns");
        if dns || name == "coredns" {
            add("DNS", name, namespace, &deployment.spec.template);
        }
    }
    if let Some(own) = installation.deployment() {
        let name = own.metadata.name.as_deref().unwrap_or_default();
        add("our own", name, &installation.namespace, &own.spec.template);
    }
    vital
}
