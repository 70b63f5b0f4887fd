//! Webhooks of both kinds of configuration, in one form.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, WebhookClientConfig};

use super::{Finding, Installation, SUFFIX};
use crate::model::labels::LabelSelector;
use crate::model::wire::pod::selector;

/// A timeout beyond which pods wait too long for a webhook that is down, seconds.
const LONGEST: i32 = 5;

/// One webhook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Configuration that it is of.
    pub configuration: String,
    /// Name.
    pub name: String,
    /// How it is reached.
    pub client: WebhookClientConfig,
    /// Whether a request is refused when it does not answer.
    pub fails: bool,
    /// Longest wait, seconds.
    pub timeout: i32,
    /// Whether it may be asked on a dry run.
    pub dry_runs: bool,
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    rules: Vec<RuleWithOperations>,
}

impl Hook {
    /// Whether it is one of ours.
    pub fn is_ours(&self) -> bool {
        self.name.ends_with(SUFFIX)
    }

    /// Whether it is asked about the creation of pods with these labels. Conditions are not looked
    /// at: they may be true.
    pub(super) fn asked_of_pods(
        &self,
        namespace: &BTreeMap<String, String>,
        pod: &BTreeMap<String, String>,
    ) -> bool {
        self.takes("", "pods") && self.selects(namespace, pod)
    }

    fn selects(
        &self,
        namespace: &BTreeMap<String, String>,
        object: &BTreeMap<String, String>,
    ) -> bool {
        self.namespaces.as_ref().is_none_or(|selector| selector.matches(namespace))
            && self.objects.as_ref().is_none_or(|selector| selector.matches(object))
    }

    /// Whether its rules take the creation of a resource.
    fn takes(&self, group: &str, resource: &str) -> bool {
        let has = |list: &Option<Vec<String>>, name: &str| {
            list.iter().flatten().any(|entry| entry == name || entry == "*")
        };
        self.rules.iter().any(|rule| {
            let resources = rule.resources.iter().flatten();
            has(&rule.operations, "CREATE")
                && has(&rule.api_groups, group)
                && resources.into_iter().any(|r| r == resource || r == "*" || r == "*/*")
        })
    }

    /// How it is called in messages.
    pub(super) fn title(&self) -> String {
        format!("{} of {}", self.name, self.configuration)
    }
}

/// All webhooks of the cluster.
pub fn hooks(installation: &Installation) -> Vec<Hook> {
    let mut all = Vec::new();
    let dry_runs = |effects: &str| matches!(effects, "None" | "NoneOnDryRun");
    // Two types of one form.
    macro_rules! read {
        ($configurations:expr) => {
            for configuration in $configurations {
                for hook in configuration.webhooks.iter().flatten() {
                    all.push(Hook {
                        configuration: configuration.metadata.name.clone().unwrap_or_default(),
                        name: hook.name.clone(),
                        client: hook.client_config.clone(),
                        fails: hook.failure_policy.as_deref() != Some("Ignore"),
                        timeout: hook.timeout_seconds.unwrap_or(10),
                        dry_runs: dry_runs(&hook.side_effects),
                        namespaces: selector(hook.namespace_selector.as_ref()),
                        objects: selector(hook.object_selector.as_ref()),
                        rules: hook.rules.clone().unwrap_or_default(),
                    });
                }
            }
        };
    }
    read!(&installation.mutating);
    read!(&installation.validating);
    all
}

/// A namespace whose Deployments our webhook is asked about; `default` if it is one.
pub fn probe_namespace(installation: &Installation) -> Option<String> {
    let all = hooks(installation);
    let advise = all.iter().find(|hook| hook.is_ours() && hook.takes("apps", "deployments"))?;
    let none = BTreeMap::new();
    let usable = |name: &&String| {
        installation.namespaces.get(*name).is_some_and(|labels| advise.selects(labels, &none))
    };
    let default = "default".to_owned();
    let first = Some(&default).filter(usable);
    first.or_else(|| installation.namespaces.keys().find(usable)).cloned()
}

/// What our registrations themselves say.
pub(super) fn settings(ours: &[&Hook]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for hook in ours {
        if hook.timeout > LONGEST {
            findings.push(Finding::warning(
                "timeout",
                format!("{} is waited for up to {} s", hook.title(), hook.timeout),
                "set webhook.timeoutSeconds to 2: webhooks are asked one after another, and all of a \
                 request shares 34 s",
            ));
        }
        if !hook.dry_runs {
            findings.push(Finding::warning(
                "side effects",
                format!("{} may not be asked on a dry run, so dry runs are refused", hook.title()),
                "register it with sideEffects: NoneOnDryRun, as the chart does",
            ));
        }
    }
    for (name, path) in [
        ("pods.mutate", "/mutate/pods"),
        ("pods.validate", "/validate/pods"),
        ("workloads.advise", "/advise/workloads"),
    ] {
        if !ours.iter().any(|hook| hook.name == format!("{name}{SUFFIX}")) {
            findings.push(Finding::warning(
                "registrations",
                format!("{name}{SUFFIX} is not registered: {path} is never asked"),
                "install the chart again (helm upgrade)",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine("registrations", format!("{} webhooks", ours.len())));
    }
    findings
}
