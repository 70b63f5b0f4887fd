//! What can take a cluster down although everything looks well: the known shapes of outages by
//! admission webhooks, looked for in an installed cluster.
//!
//! [`examine`] is a pure function of the objects of the API server; somebody else reads them. It
//! does not look at policies, pools or the cloud.

mod certificate;
mod hooks;
mod reach;
mod scope;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1 as registration;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;

pub use hooks::{Hook, hooks, probe_namespace};

/// Ending of the names of our webhooks, by which they are found whatever the release is called.
pub const SUFFIX: &str = ".harbinger.sh";

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Severity {
    /// Admission does not work, or can stop the cluster.
    Error,
    /// It will, or might.
    Warning,
    /// It was looked at and is well.
    Fine,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at, in a word.
    pub check: &'static str,
    /// What was found.
    pub found: String,
    /// What to do; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Finding {
    fn error(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Error, check, found: found.into(), fix: fix.into() }
    }

    fn warning(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, check, found: found.into(), fix: fix.into() }
    }

    fn fine(check: &'static str, found: impl Into<String>) -> Self {
        Self { severity: Severity::Fine, check, found: found.into(), fix: String::new() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Fine => "ok",
        };
        write!(f, "{mark:<8}{}: {}", self.check, self.found)?;
        if !self.fix.is_empty() {
            write!(f, "\n        → {}", self.fix)?;
        }
        Ok(())
    }
}

/// What came of creating a Deployment that nobody keeps, which our webhook always says something
/// about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Probe {
    /// The webhook spoke.
    Answered,
    /// The object was taken in silence: the API server did not get an answer.
    Silent,
    /// It was refused, with this message.
    Refused(String),
    /// It was not tried, for this reason.
    Untried(String),
}

/// What the serving certificate's Secret says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServingSecret {
    /// `tls.crt` as PEM.
    Certificate(String),
    /// It is not there, or has no `tls.crt`.
    Absent,
    /// It may not be read.
    Hidden,
}

/// An installation, as the API server shows it.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Namespace of the release.
    pub namespace: String,
    /// All mutating configurations of the cluster.
    pub mutating: Vec<registration::MutatingWebhookConfiguration>,
    /// All validating configurations of the cluster.
    pub validating: Vec<registration::ValidatingWebhookConfiguration>,
    /// Labels of all namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// DaemonSets of all namespaces.
    pub daemon_sets: Vec<DaemonSet>,
    /// Deployments of all namespaces.
    pub deployments: Vec<Deployment>,
    /// The Service that our webhooks name.
    pub service: Option<Service>,
    /// Its endpoints.
    pub slices: Vec<EndpointSlice>,
    /// Disruption budgets of the release's namespace.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Quotas of the release's namespace.
    pub quotas: Vec<ResourceQuota>,
    /// Name of the serving certificate's Secret, and what it says.
    pub serving: Option<(String, ServingSecret)>,
    /// What came of the probe.
    pub probe: Probe,
}

impl Installation {
    /// The Deployment that runs the webhook.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| {
            deployment.metadata.namespace.as_deref() == Some(&self.namespace)
                && reach::webhook_container(deployment).is_some()
        })
    }
}

/// Looks at everything, the worst first.
pub fn examine(installation: &Installation, now: Timestamp) -> Vec<Finding> {
    let all = hooks(installation);
    let ours: Vec<&Hook> = all.iter().filter(|hook| hook.is_ours()).collect();
    if ours.is_empty() {
        let fix = format!(
            "install the chart into namespace {}, or name the right one with --namespace",
            installation.namespace
        );
        return vec![Finding::error("registrations", "no webhook of Harbinger is registered", fix)];
    }
    let mut findings = hooks::settings(&ours);
    findings.extend(scope::findings(installation, &all));
    findings.extend(certificate::findings(installation, &ours, now));
    findings.extend(reach::findings(installation, &ours));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The name of the Secret that a webhook's Deployment serves with.
pub fn serving_secret(deployment: &Deployment) -> Option<String> {
    certificate::secret_name(deployment)
}

#[cfg(test)]
mod tests;
