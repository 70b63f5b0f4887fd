//! Reading an installation for the doctor. Nothing is changed: the one object that is created is a
//! dry run.

use std::fmt::Debug;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::advice::SILENCE_ANNOTATION;
use crate::doctor::{self, Installation, Probe, ServingSecret};
use crate::k8s::client;

/// Reads everything that the doctor looks at.
///
/// # Errors
/// When the API server cannot be reached, or does not let the account list what must be read.
pub async fn look(kubeconfig: Option<&Path>, namespace: &str) -> Result<Installation> {
    let client = client::connect(kubeconfig).await?.client;
    let namespaces: Vec<Namespace> = list(Api::all(client.clone())).await?;
    let labels = |object: Namespace| {
        let mut labels = object.labels().clone();
        let name = object.name_any();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
        (name, labels)
    };
    let mut installation = Installation {
        namespace: namespace.to_owned(),
        mutating: list(Api::all(client.clone())).await?,
        validating: list(Api::all(client.clone())).await?,
        namespaces: namespaces.into_iter().map(labels).collect(),
        daemon_sets: list(Api::all(client.clone())).await?,
        deployments: list(Api::all(client.clone())).await?,
        service: None,
        slices: Vec::new(),
        budgets: list(Api::namespaced(client.clone(), namespace)).await?,
        quotas: list(Api::namespaced(client.clone(), namespace)).await?,
        serving: None,
        probe: Probe::Untried(String::new()),
    };
    let hooks = doctor::hooks(&installation);
    let mut ours = hooks.iter().filter(|hook| hook.is_ours());
    if let Some(service) = ours.find_map(|hook| hook.client.service.clone()) {
        let services = Api::namespaced(client.clone(), &service.namespace);
        installation.service = services.get_opt(&service.name).await?;
        let of =
            ListParams::default().labels(&format!("kubernetes.io/service-name={}", service.name));
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), &service.namespace);
        installation.slices = slices.list(&of).await?.items;
    }
    if let Some(name) = installation.deployment().and_then(doctor::serving_secret) {
        let secret = serving(&client, namespace, &name).await?;
        installation.serving = Some((name, secret));
    }
    installation.probe = match doctor::probe_namespace(&installation) {
        Some(namespace) => probe(&client, &namespace).await?,
        None => Probe::Untried("the webhook is asked about Deployments of no namespace".to_owned()),
    };
    Ok(installation)
}

async fn list<K>(api: Api<K>) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kind = K::kind(&());
    let listed = api.list(&ListParams::default()).await;
    Ok(listed.with_context(|| format!("listing every {kind}"))?.items)
}

async fn serving(client: &Client, namespace: &str, name: &str) -> Result<ServingSecret> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    Ok(match secrets.get_opt(name).await {
        Ok(secret) => {
            let data = secret.and_then(|secret| secret.data).unwrap_or_default();
            match data.get("tls.crt").filter(|pem| !pem.0.is_empty()) {
                Some(pem) => {
                    ServingSecret::Certificate(String::from_utf8_lossy(&pem.0).into_owned())
                }
                None => ServingSecret::Absent,
            }
        }
        Err(kube::Error::Api(status)) if status.code == 403 => ServingSecret::Hidden,
        Err(error) => return Err(error).context("reading the serving certificate"),
    })
}

/// Creates a Deployment as a dry run that silences advice which does not exist: a webhook that is
/// reached always says so.
async fn probe(client: &Client, namespace: &str) -> Result<Probe> {
    let name = "harbinger-doctor";
    let labels = json!({ "app": name });
    let requests = json!({ "cpu": "10m", "memory": "16Mi" });
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "annotations": { SILENCE_ANNOTATION: name } },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [
                    { "name": name, "image": name, "resources": { "requests": requests } }
                ] },
            },
        },
    });
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments?dryRun=All");
    let request = http::Request::post(path).header("content-type", "application/json");
    let response = client.send(request.body(Body::from(serde_json::to_vec(&object)?))?).await?;
    let (head, body) = response.into_parts();
    let spoke = head.headers.get_all("warning").iter().any(|warning| {
        warning.to_str().is_ok_and(|text| text.contains("HB000") && text.contains(name))
    });
    if spoke {
        return Ok(Probe::Answered);
    }
    if head.status.is_success() {
        return Ok(Probe::Silent);
    }
    let status: serde_json::Value =
        serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
    Ok(Probe::Refused(status["message"].as_str().unwrap_or("no reason is given").to_owned()))
}
