//! Whether the API server can trust the serving certificate, now and next week.

use jiff::{Span, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;

use super::hooks::Hook;
use super::reach::webhook_container;
use super::{Finding, Installation, ServingSecret};
use crate::certs;

/// Time before the end of a certificate from which on somebody should look: whoever renews it does
/// so earlier.
const SOON_DAYS: i64 = 7;

/// Name of the Secret that the webhook serves with: a flag's, or a volume's.
pub(super) fn secret_name(deployment: &Deployment) -> Option<String> {
    let container = webhook_container(deployment)?;
    let flag = container
        .args
        .iter()
        .flatten()
        .find_map(|arg| arg.strip_prefix("--certificate-secret=").map(str::to_owned));
    flag.or_else(|| {
        let spec = deployment.spec.template.spec.as_ref()?;
        let mut volumes = spec.volumes.iter().flatten();
        volumes.find_map(|volume| volume.secret.as_ref()?.secret_name.clone())
    })
}

pub(super) fn findings(
    installation: &Installation,
    ours: &[&Hook],
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some((secret, serving)) = &installation.serving else {
        return findings;
    };
    let place = format!("Secret {}/{secret}", installation.namespace);
    let certificate = match serving {
        ServingSecret::Certificate(certificate) => certificate,
        ServingSecret::Absent => {
            return vec![Finding::error(
                "certificate",
                format!("{place} is not there or has no tls.crt"),
                "look at the Certificate and its Issuer (cert-manager), at the webhook's log \
                 (selfManaged), or make it with `harbinger certs` (bringYourOwn)",
            )];
        }
        ServingSecret::Hidden => {
            return vec![Finding::warning(
                "certificate",
                format!("{place} may not be read, so its certificate was not looked at"),
                "run with an account that may get this Secret",
            )];
        }
    };
    findings.extend(end(&place, certificate, now));
    for hook in ours {
        let title = hook.title();
        let bundle = hook.client.ca_bundle.as_ref().map(|bundle| &*bundle.0).unwrap_or_default();
        if bundle.is_empty() {
            findings.push(Finding::error(
                "authority",
                format!("{title} has no caBundle: the API server trusts nobody there"),
                "with cert-manager look at its cainjector; with selfManaged at the webhook's log; \
                 else set certificates.caBundle",
            ));
            continue;
        }
        let name = match &hook.client.service {
            Some(service) => format!("{}.{}.svc", service.name, service.namespace),
            None => continue,
        };
        if let Err(why) = certs::verify(certificate, bundle, &name, now) {
            findings.push(Finding::error(
                "authority",
                format!("{title}: its caBundle does not trust {place} for {name}: {why}"),
                "let the same authority be in both: restart cert-manager's cainjector, or the \
                 webhook (selfManaged), or set certificates.caBundle to the ca.crt of the Secret",
            ));
        }
        if let Some((_, until)) = std::str::from_utf8(bundle).ok().and_then(certs::validity) {
            findings.extend(ends(&format!("the authority of {title}"), until, now));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine("certificate", format!("{place} is trusted by every webhook")));
    }
    findings
}

fn end(place: &str, certificate: &str, now: Timestamp) -> Option<Finding> {
    match certs::validity(certificate) {
        Some((_, until)) => ends(&format!("the certificate of {place}"), until, now),
        None => Some(Finding::error(
            "certificate",
            format!("{place} holds no certificate that can be read"),
            "replace tls.crt and tls.key",
        )),
    }
}

fn ends(what: &str, until: Timestamp, now: Timestamp) -> Option<Finding> {
    let fix = "see that it is renewed: cert-manager's Certificate, the webhook's log \
               (selfManaged), or a new pair of `harbinger certs` (bringYourOwn)";
    if until <= now {
        return Some(Finding::error("expiry", format!("{what} ended {until}"), fix));
    }
    // A Span of hours always fits a time of this era.
    let soon = now.checked_add(Span::new().hours(SOON_DAYS * 24)).ok()?;
    (until <= soon).then(|| Finding::warning("expiry", format!("{what} ends {until}"), fix))
}
