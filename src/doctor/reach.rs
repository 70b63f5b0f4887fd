//! Whether the API server reaches the webhook, and whether the webhook's pods can come back.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::hooks::Hook;
use super::{Finding, Installation, Probe};
use crate::model::companions::Budget;
use crate::model::quantity::Quantity;

/// Port of a Service that a webhook means when it names none.
const HTTPS: i32 = 443;

/// The container that answers reviews: the one that is told where to listen.
pub(super) fn webhook_container(deployment: &Deployment) -> Option<&Container> {
    let spec = deployment.spec.template.spec.as_ref()?;
    spec.containers.iter().find(|container| {
        let mut args = container.args.iter().flatten();
        args.any(|arg| arg == "webhook") && container.name == "webhook"
    })
}

pub(super) fn findings(installation: &Installation, ours: &[&Hook]) -> Vec<Finding> {
    let mut findings = port(installation, ours);
    findings.push(probe(&installation.probe));
    findings.extend(pods(installation));
    findings.extend(quota(installation));
    findings
}

fn port(installation: &Installation, ours: &[&Hook]) -> Vec<Finding> {
    let named = ours.iter().find_map(|hook| hook.client.service.as_ref());
    let Some(reference) = named else { return Vec::new() };
    let title = format!("{}/{}", reference.namespace, reference.name);
    let Some(spec) = installation.service.as_ref().and_then(|service| service.spec.as_ref()) else {
        return vec![Finding::error(
            "port",
            format!("the webhooks name Service {title}, which does not exist"),
            "install the chart again (helm upgrade), or delete the registrations: kubectl delete \
             mutatingwebhookconfiguration,validatingwebhookconfiguration -l \
             app.kubernetes.io/name=harbinger",
        )];
    };
    let mut findings = Vec::new();
    for hook in ours {
        let Some(service) = &hook.client.service else { continue };
        let number = service.port.unwrap_or(HTTPS);
        let Some(port) = spec.ports.iter().flatten().find(|port| port.port == number) else {
            findings.push(Finding::error(
                "port",
                format!(
                    "{} is dialled at port {number}, which Service {title} does not have",
                    hook.title()
                ),
                "set webhook.servicePort and upgrade, so that both agree",
            ));
            continue;
        };
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
        let container = installation.deployment().and_then(webhook_container);
        let open = container.is_none_or(|container| {
            container.ports.iter().flatten().any(|open| match &target {
                IntOrString::Int(number) => open.container_port == *number,
                IntOrString::String(name) => open.name.as_ref() == Some(name),
            })
        });
        if !open {
            let target = match target {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => name,
            };
            findings.push(Finding::error(
                "port",
                format!("Service {title} leads to port {target}, which the webhook does not open"),
                "install the chart again (helm upgrade)",
            ));
        }
    }
    let ready = |ready: Option<bool>| ready != Some(false);
    let endpoints = installation.slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let up = endpoints
        .filter(|endpoint| ready(endpoint.conditions.as_ref().and_then(|c| c.ready)))
        .count();
    if up == 0 {
        findings.push(Finding::error(
            "port",
            format!("Service {title} has no ready endpoint: nobody answers"),
            "look at the pods (kubectl describe, kubectl logs -c webhook)",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::fine("port", format!("Service {title} leads to {up} ready pods")));
    }
    findings
}

fn probe(probe: &Probe) -> Finding {
    match probe {
        Probe::Answered => Finding::fine("answer", "the API server gets answers from the webhook"),
        Probe::Silent => Finding::error(
            "answer",
            "a Deployment was created (as a dry run) and the webhook said nothing: the API server \
             does not get an answer",
            "between them may be: a certificate that is not trusted (see above), a NetworkPolicy or \
             firewall that closes the webhook's port to the control plane (private GKE clusters \
             open 443 and 10250 only: set webhook.port), or a network of pods that the control \
             plane does not reach (EKS with an overlay: set hostNetwork)",
        ),
        Probe::Refused(why) => Finding::warning(
            "answer",
            format!("the probe was refused by somebody else: {why}"),
            "let Deployments be created in that namespace as a dry run, and try again",
        ),
        Probe::Untried(why) => Finding::warning("answer", format!("not probed: {why}"), ""),
    }
}

fn pods(installation: &Installation) -> Vec<Finding> {
    let Some(deployment) = installation.deployment() else {
        return vec![Finding::warning(
            "replicas",
            format!("no Deployment of the webhook is in namespace {}", installation.namespace),
            "name the namespace of the release with --namespace",
        )];
    };
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    let mut findings = Vec::new();
    if wanted < 2 {
        findings.push(Finding::warning(
            "replicas",
            "there is one replica: nobody answers while it is replaced",
            "set replicas to 2 or more",
        ));
    }
    if ready < wanted {
        findings.push(Finding::warning(
            "replicas",
            format!("{ready} of {wanted} replicas are ready"),
            "look at the pods (kubectl describe, kubectl logs)",
        ));
    }
    let template = deployment.spec.template.metadata.as_ref();
    let labels = template.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    for budget in installation.budgets.iter().cloned().map(Budget::from) {
        if budget.selects(&installation.namespace, &labels)
            && budget.allowed(i64::from(wanted)) <= 0
        {
            findings.push(Finding::warning(
                "replicas",
                format!("budget {:?} ({}) lets no replica go", budget.name, budget.rule()),
                "lower podDisruptionBudget.minAvailable below replicas, or drains never end",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine("replicas", format!("{ready} of {wanted} are ready")));
    }
    findings
}

/// Pods of the system's priorities need a quota that admits them where the API server limits these
/// priorities, as managed clusters do.
fn quota(installation: &Installation) -> Vec<Finding> {
    let mut findings = Vec::new();
    let conditions = installation.deployment().and_then(|deployment| deployment.status.as_ref());
    let conditions = conditions.and_then(|status| status.conditions.as_ref());
    for condition in conditions.into_iter().flatten() {
        if condition.type_.as_deref() != Some("ReplicaFailure")
            || condition.status.as_deref() != Some("True")
        {
            continue;
        }
        let why = condition.message.as_deref().unwrap_or_default();
        let fix = if why.contains("insufficient quota") {
            "allow system-cluster-critical there: a ResourceQuota with scopeSelector PriorityClass \
             In [system-cluster-critical] and hard pods, or set priorityClassName to one of yours"
        } else if why.contains("exceeded quota") {
            "raise the quota: an upgrade needs room for one pod more than there are replicas"
        } else {
            "the message says what refused the pod"
        };
        let found = format!("pods of the webhook cannot be created: {why}");
        findings.push(Finding::error("quota", found, fix));
    }
    for quota in &installation.quotas {
        let Some(status) = &quota.status else { continue };
        let amount = |list: &Option<std::collections::BTreeMap<String, Amount>>| {
            let text = &list.as_ref()?.get("pods")?.0;
            text.parse::<Quantity>().ok().map(Quantity::units)
        };
        if let (Some(hard), Some(used)) = (amount(&status.hard), amount(&status.used))
            && used >= hard
        {
            let name = quota.metadata.name.as_deref().unwrap_or_default();
            findings.push(Finding::warning(
                "quota",
                format!("quota {name:?} has room for no further pod ({used} of {hard})"),
                "raise it: an upgrade needs room for one pod more than there are replicas",
            ));
        }
    }
    if findings.is_empty() {
        findings
            .push(Finding::fine("quota", "nothing keeps the webhook's pods from being created"));
    }
    findings
}
