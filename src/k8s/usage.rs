//! What pods use, what VerticalPodAutoscalers recommend, and the profiles that keep what was learned.
//!
//! Neither `metrics.k8s.io` nor the autoscaler need be installed, so both are asked from time to time,
//! which says plainly that they are absent, and not watched.

use http::Request;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::write::MANAGER;
use crate::api::demandprofile::{DemandProfile, DemandProfileSpec};
use crate::model::resources::{CPU, MEMORY, Resources};
use crate::model::wire::requests::ResourceList;
use crate::server::{ApiError, PodUsage, Profile};

/// Profiles of one answer: each has at most 400 KB, so an answer at most 6 MB.
pub(super) const PAGE: u32 = 16;

/// What a VerticalPodAutoscaler recommends for a container of a workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recommended {
    /// Namespace.
    pub namespace: String,
    /// Kind and name of the workload.
    pub owner: (String, String),
    /// Name of the container.
    pub container: String,
    /// Millicores.
    pub cpu: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Name {
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodMetrics {
    metadata: Name,
    containers: Vec<ContainerMetrics>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerMetrics {
    name: String,
    usage: ResourceList,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Autoscaler {
    metadata: Name,
    spec: AutoscalerSpec,
    status: AutoscalerStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AutoscalerSpec {
    target_ref: Target,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Target {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AutoscalerStatus {
    recommendation: Recommendation,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Recommendation {
    container_recommendations: Vec<ContainerRecommendation>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerRecommendation {
    container_name: String,
    target: ResourceList,
}

async fn list<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Vec<T>, ApiError> {
    let request = Request::get(path)
        .body(Vec::new())
        .map_err(|error| ApiError::Invalid(error.to_string()))?;
    let list: List<T> = client.request(request).await?;
    Ok(list.items)
}

fn amount(list: &ResourceList, name: &str) -> Option<i64> {
    list.get(name).map(|quantity| Resources::amount(name, *quantity))
}

/// What all pods use now; the server of metrics knows no pages.
pub(super) async fn usage(client: &Client) -> Result<Vec<PodUsage>, ApiError> {
    let pods: Vec<PodMetrics> = list(client, "/apis/metrics.k8s.io/v1beta1/pods").await?;
    Ok(pods.into_iter().map(pod_usage).collect())
}

fn pod_usage(pod: PodMetrics) -> PodUsage {
    let container = |container: ContainerMetrics| {
        let cpu = amount(&container.usage, CPU)?;
        Some((container.name, cpu, amount(&container.usage, MEMORY)?))
    };
    PodUsage {
        namespace: pod.metadata.namespace,
        name: pod.metadata.name,
        containers: pod.containers.into_iter().filter_map(container).collect(),
    }
}

/// What all VerticalPodAutoscalers recommend, those that only advise too, by namespace.
///
/// # Errors
/// [`ApiError::NotFound`] where they are not installed.
pub async fn recommendations(client: &Client) -> Result<Vec<Recommended>, ApiError> {
    let path = "/apis/autoscaling.k8s.io/v1/verticalpodautoscalers";
    let all: Vec<Autoscaler> = list(client, path).await?;
    let mut all: Vec<Recommended> = all.into_iter().flat_map(recommended).collect();
    all.sort_by(|a, b| {
        (&a.namespace, &a.owner, &a.container).cmp(&(&b.namespace, &b.owner, &b.container))
    });
    Ok(all)
}

fn recommended(autoscaler: Autoscaler) -> impl Iterator<Item = Recommended> {
    let Autoscaler { metadata, spec: AutoscalerSpec { target_ref }, status } = autoscaler;
    let all = status.recommendation.container_recommendations;
    all.into_iter().map(move |one| Recommended {
        namespace: metadata.namespace.clone(),
        owner: (target_ref.kind.clone(), target_ref.name.clone()),
        container: one.container_name,
        cpu: amount(&one.target, CPU),
        memory: amount(&one.target, MEMORY),
    })
}

/// All profiles, page by page.
pub(super) async fn profiles(client: &Client) -> Result<Vec<Profile>, ApiError> {
    let api: Api<DemandProfile> = Api::all(client.clone());
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items.iter().map(|object| Profile {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            containers: usize::try_from(object.spec.containers).unwrap_or(0),
            data: object.spec.bytes(),
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Writes a profile, whether or not it is there.
pub(super) async fn write_profile(client: &Client, profile: &Profile) -> Result<(), ApiError> {
    let spec = DemandProfileSpec::new(profile.containers, &profile.data);
    let object = DemandProfile::new(&profile.name, spec);
    let api: Api<DemandProfile> = Api::namespaced(client.clone(), &profile.namespace);
    api.patch(&profile.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Deletes a profile; one that is gone is deleted.
pub(super) async fn delete_profile(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let api: Api<DemandProfile> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::default()).await.map_err(ApiError::from) {
        Ok(_) | Err(ApiError::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_are_read_as_the_metrics_server_writes_them() {
        let pod = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "creationTimestamp": "2026-06-01T12:00:00Z"},
            "timestamp": "2026-06-01T12:00:00Z", "window": "15.031s",
            "containers": [
                {"name": "app", "usage": {"cpu": "1234567n", "memory": "20492Ki"}},
                {"name": "half", "usage": {"cpu": "1"}},
            ],
        });
        let read = pod_usage(serde_json::from_value(pod).unwrap());
        assert_eq!((&*read.namespace, &*read.name), ("shop", "web-1"));
        // Rounded up to whole millicores; a container of which only one is known is left out.
        assert_eq!(read.containers, [("app".to_owned(), 2, 20492 << 10)]);
    }

    #[test]
    fn recommendations_name_workload_and_container() {
        let autoscaler = json!({
            "metadata": {"name": "vpa", "namespace": "shop"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "updatePolicy": {"updateMode": "Off"}},
            "status": {"recommendation": {"containerRecommendations": [
                {"containerName": "app", "target": {"cpu": "25m", "memory": "262144k"}}]}},
        });
        let read: Vec<Recommended> =
            recommended(serde_json::from_value(autoscaler).unwrap()).collect();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].owner, ("Deployment".to_owned(), "web".to_owned()));
        assert_eq!((read[0].cpu, read[0].memory), (Some(25), Some(262_144_000)));
        let young = json!({"metadata": {"name": "v", "namespace": "n"}, "spec": {}});
        assert_eq!(recommended(serde_json::from_value(young).unwrap()).count(), 0);
    }
}
