//! Certificates of the webhook's own making, kept in a Secret that all replicas share.
//!
//! The first replica makes an authority and a serving certificate and stores both; the others read
//! them. Whoever sees first that something is due (see [`Kept`]) does it: the serving certificate
//! is renewed under its authority, and every few years another authority takes over. Each replica also
//! writes the authorities into the registrations, which is idle work once they are there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use base64::Engine as _;
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
use crate::certs::{Certificates, Kept, Pace, Request};
use crate::control::Clock as _;

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
    /// Life of the authority.
    pub authority_lifetime: Duration,
    /// Life of the serving certificate.
    pub certificate_lifetime: Duration,
}

impl SelfManaged {
    /// What is wanted now.
    fn request(&self) -> Request {
        Request {
            ca_lifetime: self.authority_lifetime,
            serving_lifetime: self.certificate_lifetime,
            ..Request::new(&self.service, &self.namespace, SystemClock.now())
        }
    }
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
        match current(&client, &settings, None).await {
            Ok(kept) => break kept,
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
    mut last: Kept,
    shared: Arc<ArcSwap<PemPair>>,
) {
    let look = Pace::of(&settings.request()).look;
    let retry = RETRY.min(look);
    loop {
        let trusted = last.trusted();
        let (mut pause, registered) = match register(&client, &settings, &trusted).await {
            Ok(holds) => (look, holds.then_some(&*trusted)),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "registrations are not written");
                (retry, None)
            }
        };
        // What is registered was read just before: another replica may be further by now.
        last = loop {
            tokio::time::sleep(pause).await;
            match current(&client, &settings, registered).await {
                Ok(next) => break next,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "certificate is not looked after");
                    pause = retry;
                }
            }
        };
        shared.store(Arc::new(pair(&last)));
    }
}

fn pair(kept: &Kept) -> PemPair {
    let Certificates { certificate, key, .. } = &kept.current;
    PemPair { certificate: certificate.clone(), key: key.clone() }
}

/// The certificates that all replicas share: read or made, and one step further where one is due.
/// `registered` is what the registrations are known to hold.
async fn current(
    client: &Client,
    settings: &SelfManaged,
    registered: Option<&str>,
) -> Result<Kept> {
    let api = Api::<Secret>::namespaced(client.clone(), &settings.namespace);
    let request = settings.request();
    let Some(secret) = api.get_opt(&settings.secret).await.context("reading the Secret")? else {
        let made = Kept::make(&request)?;
        let mut secret = secret_of(settings, &made);
        if let Some(data) = secret["data"].as_object_mut() {
            data.retain(|_, value| !value.is_null());
        }
        let secret: Secret = serde_json::from_value(secret)?;
        // Of replicas that start together one wins; the others read what it made.
        api.create(&PostParams::default(), &secret).await.context("making the Secret")?;
        tracing::info!(secret = settings.secret, "certificate made");
        return Ok(made);
    };
    let data = secret.data.unwrap_or_default();
    let Some(held) = kept_in(&data) else {
        bail!(
            "the Secret {}/{} lacks ca.crt, ca.key, tls.crt or tls.key; delete it",
            settings.namespace,
            settings.secret
        );
    };
    let is_registered = registered.is_some_and(|registered| registered == held.trusted());
    let Some((step, next)) = held.step(&request, is_registered)? else { return Ok(held) };
    let mut patch = secret_of(settings, &next);
    patch["metadata"] = json!({"resourceVersion": secret.metadata.resource_version});
    api.patch(&settings.secret, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .context("changing the Secret")?;
    tracing::info!(secret = settings.secret, ?step, "certificates changed");
    Ok(next)
}

fn secret_of(settings: &SelfManaged, kept: &Kept) -> Value {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let Kept { current, next, old } = kept;
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": settings.secret, "namespace": settings.namespace},
        "type": "kubernetes.io/tls",
        // A merge removes what is null.
        "data": {
            "ca.crt": encode(&current.ca),
            "ca.key": encode(&current.ca_key),
            "next-ca.crt": next.as_ref().map(|(certificate, _)| encode(certificate)),
            "next-ca.key": next.as_ref().map(|(_, key)| encode(key)),
            "old-ca.crt": old.as_deref().map(encode),
            "tls.crt": encode(&current.certificate),
            "tls.key": encode(&current.key),
        },
    })
}

fn kept_in(data: &BTreeMap<String, ByteString>) -> Option<Kept> {
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some(Kept {
        current: Certificates {
            ca: text("ca.crt")?,
            ca_key: text("ca.key")?,
            certificate: text("tls.crt")?,
            key: text("tls.key")?,
        },
        next: text("next-ca.crt").zip(text("next-ca.key")),
        old: text("old-ca.crt"),
    })
}

/// Annotation by which cert-manager is asked to write the authority.
const INJECT: &str = "cert-manager.io/inject-ca-from";

/// Writes the authorities into both registrations where they are not there. Says whether they are now.
async fn register(client: &Client, settings: &SelfManaged, trusted: &str) -> Result<bool> {
    let bundle = base64::engine::general_purpose::STANDARD.encode(trusted);
    let (mutating, validating) = &settings.registrations;
    let first = write::<MutatingWebhookConfiguration>(client, mutating, &bundle).await?;
    let second = write::<ValidatingWebhookConfiguration>(client, validating, &bundle).await?;
    Ok(first && second)
}

async fn write<K>(client: &Client, name: &str, bundle: &str) -> Result<bool>
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
        return Ok(false);
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
        return Ok(true);
    }
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch))?;
    api.patch(name, &PatchParams::default(), &Patch::<K>::Json(patch))
        .await
        .with_context(|| format!("writing {name}"))?;
    tracing::info!(name, "authorities written into the registration");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{CA_LIFETIME, SERVING_LIFETIME};

    #[test]
    fn what_is_written_is_read_again() {
        let settings = SelfManaged {
            namespace: "ns".to_owned(),
            secret: "tls".to_owned(),
            service: "h".to_owned(),
            registrations: ("m".to_owned(), "v".to_owned()),
            authority_lifetime: CA_LIFETIME,
            certificate_lifetime: SERVING_LIFETIME,
        };
        let request = settings.request();
        let mut kept = Kept::make(&request).unwrap();
        for (next, old) in [
            (None, None),
            (Some(("c".to_owned(), "k".to_owned())), None),
            (None, Some("o".to_owned())),
        ] {
            (kept.next, kept.old) = (next, old);
            let mut secret = secret_of(&settings, &kept);
            // As the API server merges it.
            secret["data"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
            let secret: Secret = serde_json::from_value(secret).unwrap();
            let read = kept_in(&secret.data.unwrap()).unwrap();
            assert_eq!((&read.next, &read.old), (&kept.next, &kept.old));
            assert_eq!(read.trusted(), kept.trusted());
            assert_eq!(pair(&read).key, kept.current.key);
        }
    }
}
