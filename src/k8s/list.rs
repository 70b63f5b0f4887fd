//! One look at a cluster: the objects that say something about pods and nodes, as they are.

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use super::usage;

/// Objects of one answer.
const PAGE: u32 = 500;

/// Path, API version and kind of what is read.
const KINDS: &[(&str, &str, &str)] = &[
    ("/api/v1/limitranges", "v1", "LimitRange"),
    ("/api/v1/namespaces", "v1", "Namespace"),
    ("/api/v1/nodes", "v1", "Node"),
    ("/api/v1/pods", "v1", "Pod"),
    ("/api/v1/resourcequotas", "v1", "ResourceQuota"),
    ("/apis/apps/v1/daemonsets", "apps/v1", "DaemonSet"),
    ("/apis/apps/v1/deployments", "apps/v1", "Deployment"),
    ("/apis/apps/v1/replicasets", "apps/v1", "ReplicaSet"),
    ("/apis/apps/v1/statefulsets", "apps/v1", "StatefulSet"),
    ("/apis/batch/v1/cronjobs", "batch/v1", "CronJob"),
    ("/apis/batch/v1/jobs", "batch/v1", "Job"),
    ("/apis/scheduling.k8s.io/v1/priorityclasses", "scheduling.k8s.io/v1", "PriorityClass"),
    ("/apis/policy/v1/poddisruptionbudgets", "policy/v1", "PodDisruptionBudget"),
    ("/apis/autoscaling/v2/horizontalpodautoscalers", "autoscaling/v2", "HorizontalPodAutoscaler"),
    ("/apis/karpenter.sh/v1/nodepools", "karpenter.sh/v1", "NodePool"),
    ("/apis/karpenter.k8s.aws/v1/ec2nodeclasses", "karpenter.k8s.aws/v1", "EC2NodeClass"),
    ("/apis/harbinger.sh/v1alpha1/requestpolicies", "harbinger.sh/v1alpha1", "RequestPolicy"),
    ("/apis/harbinger.sh/v1alpha1/demandprofiles", "harbinger.sh/v1alpha1", "DemandProfile"),
];

/// What was found.
#[derive(Debug, Default)]
pub struct Listed {
    /// Objects with their kind.
    pub objects: Vec<Value>,
    /// Kinds that could not be read, and why.
    pub notes: Vec<String>,
}

/// Lists everything, page by page.
///
/// # Errors
/// When the API server does not answer. A kind that is not installed or not allowed is a note.
pub async fn everything(client: &Client) -> Result<Listed, kube::Error> {
    let mut listed = Listed::default();
    for (path, api_version, kind) in KINDS {
        match list(client, path, api_version, kind, &mut listed.objects).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                let why =
                    if status.code == 404 { "not installed" } else { "not allowed to be read" };
                listed.notes.push(format!("{kind} of {api_version} is {why} and left out"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
}

async fn list(
    client: &Client,
    path: &str,
    api_version: &str,
    kind: &str,
    objects: &mut Vec<Value>,
) -> Result<(), kube::Error> {
    let mut next = String::new();
    let limit = if kind == "DemandProfile" { usage::PAGE } else { PAGE };
    loop {
        let uri = format!("{path}?limit={limit}{next}");
        let request = Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let mut page: Value = client.request(request).await?;
        if let Some(items) = page["items"].as_array_mut() {
            for mut item in items.drain(..) {
                // Items of a list do not say what they are.
                item["apiVersion"] = json!(api_version);
                item["kind"] = json!(kind);
                if let Some(meta) = item["metadata"].as_object_mut() {
                    meta.remove("managedFields");
                }
                objects.push(item);
            }
        }
        match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => next = format!("&continue={token}"),
            None => return Ok(()),
        }
    }
}
