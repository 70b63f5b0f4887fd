//! Certificates of the webhook's own making, kept in a Secret that all replicas share.
//!
//! The first replica makes an authority and a serving certificate and stores both; the others read
//! them. Whoever sees that less than a third of the serving certificate's life is left renews it
//! under the same authority, so the registrations stay as they are. Each replica also writes the
//! authority into the registrations, which is idle work once it is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use base64::Engine as _;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SystemClock;
use crate::admission::PemPair;
use crate::certs::{self, Certificates, Request};
use crate::control::Clock as _;

/// How often the Secret and the registrations are looked at.
const EVERY: Duration = Duration::from_mins(10);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Attempts at start, beside others who start at the same time.
const ATTEMPTS: u32 = 12;

/// What is managed.
#[derive(Clone, Debug)]
pub struct SelfManaged {
    /// Namespace of the Secret and the Service.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Name of the Service.
    pub service: String,
    /// Names of the registrations: mutating and validating.
    pub registrations: (String, String),
}

/// Makes or reads the certificate, and keeps it and the registrations current until cancelled.
///
/// # Errors
/// When the Secret can neither be read nor made.
pub async fn start(
    client: Client,
    settings: SelfManaged,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<Arc<ArcSwap<PemPair>>> {
    let mut attempt = 0;
    let first = loop {
        attempt += 1;
        match current(&client, &settings).await {
            Ok(certificates) => break certificates,
            Err(error) if attempt >= ATTEMPTS => return Err(error),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "certificate is not there yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let shared = Arc::new(ArcSwap::from_pointee(pair(&first)));
    let kept = Arc::clone(&shared);
    let cancel = cancel.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = keep(client, settings, first, kept) => {}
        }
    });
    Ok(shared)
}

async fn keep(
    client: Client,
    settings: SelfManaged,
    mut last: Certificates,
    shared: Arc<ArcSwap<PemPair>>,
) {
    loop {
        let pause = match register(&client, &settings, &last.ca).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "registrations are not written");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
        match current(&client, &settings).await {
            Ok(next) => {
                shared.store(Arc::new(pair(&next)));
                last = next;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "certificate is not looked after");
            }
        }
    }
}

fn pair(certificates: &Certificates) -> PemPair {
    PemPair { certificate: certificates.certificate.clone(), key: certificates.key.clone() }
}

/// The certificate that all replicas share: read, made or renewed.
async fn current(client: &Client, settings: &SelfManaged) -> Result<Certificates> {
    let api = Api::<Secret>::namespaced(client.clone(), &settings.namespace);
    let now = SystemClock.now();
    let request = Request::new(&settings.service, &settings.namespace, now);
    let Some(secret) = api.get_opt(&settings.secret).await.context("reading the Secret")? else {
        let made = certs::issue(&request)?;
        let secret: Secret = serde_json::from_value(secret_of(settings, &made))?;
        // Of replicas that start together one wins; the others read what it made.
        api.create(&PostParams::default(), &secret).await.context("making the Secret")?;
        tracing::info!(secret = settings.secret, "certificate made");
        return Ok(made);
    };
    let data = secret.data.unwrap_or_default();
    let Some(held) = certificates_of(&data) else {
        bail!(
            "the Secret {}/{} lacks ca.crt, ca.key, tls.crt or tls.key; delete it",
            settings.namespace,
            settings.secret
        );
    };
    if fresh(&held.certificate, now) {
        return Ok(held);
    }
    let renewed = certs::renew(&request, &held.ca, &held.ca_key)?;
    let mut patch = secret_of(settings, &renewed);
    patch["metadata"] = json!({"resourceVersion": secret.metadata.resource_version});
    api.patch(&settings.secret, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .context("renewing the Secret")?;
    tracing::info!(secret = settings.secret, "certificate renewed");
    Ok(renewed)
}

/// Whether more than a third of the certificate's life is left.
fn fresh(certificate: &str, now: Timestamp) -> bool {
    certs::validity(certificate).is_some_and(|(from, until)| {
        let life = until.as_second() - from.as_second();
        until.as_second() - now.as_second() > life / 3
    })
}

fn secret_of(settings: &SelfManaged, certificates: &Certificates) -> Value {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": settings.secret, "namespace": settings.namespace},
        "type": "kubernetes.io/tls",
        "data": {
            "ca.crt": encode(&certificates.ca),
            "ca.key": encode(&certificates.ca_key),
            "tls.crt": encode(&certificates.certificate),
            "tls.key": encode(&certificates.key),
        },
    })
}

fn certificates_of(data: &BTreeMap<String, ByteString>) -> Option<Certificates> {
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some(Certificates {
        ca: text("ca.crt")?,
        ca_key: text("ca.key")?,
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    })
}

/// Annotation by which cert-manager is asked to write the authority.
const INJECT: &str = "cert-manager.io/inject-ca-from";

/// Writes the authority into both registrations where it is not there.
async fn register(client: &Client, settings: &SelfManaged, ca: &str) -> Result<()> {
    let bundle = base64::engine::general_purpose::STANDARD.encode(ca);
    let (mutating, validating) = &settings.registrations;
    write::<MutatingWebhookConfiguration>(client, mutating, &bundle).await?;
    write::<ValidatingWebhookConfiguration>(client, validating, &bundle).await
}

async fn write<K>(client: &Client, name: &str, bundle: &str) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let object = api.get(name).await.with_context(|| format!("reading {name}"))?;
    // Somebody's wish that cert-manager writes there: two writers would undo each other's work for ever.
    if object.meta().annotations.iter().flatten().any(|(key, _)| key == INJECT) {
        return Ok(());
    }
    let object = serde_json::to_value(object)?;
    let webhooks = object["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    let mut patch = Vec::new();
    for (index, webhook) in webhooks.iter().enumerate() {
        if webhook["clientConfig"]["caBundle"] != *bundle {
            let path = format!("/webhooks/{index}/clientConfig/caBundle");
            // A list may have changed since it was read, so the place is tested.
            patch.push(json!({
                "op": "test", "path": format!("/webhooks/{index}/name"), "value": webhook["name"],
            }));
            patch.push(json!({"op": "add", "path": path, "value": bundle}));
        }
    }
    if patch.is_empty() {
        return Ok(());
    }
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch))?;
    api.patch(name, &PatchParams::default(), &Patch::<K>::Json(patch))
        .await
        .with_context(|| format!("writing {name}"))?;
    tracing::info!(name, "authority written into the registration");
    Ok(())
}
