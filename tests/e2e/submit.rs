//! Objects sent to the API server, and everything that it answers: kubectl shows warnings to people
//! only.

use anyhow::Result;
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub code: u16,
    /// The object, or the Status of a refusal.
    pub object: Value,
    pub warnings: Vec<String>,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.object["message"].as_str().unwrap_or_default()
    }

    /// A request of a container.
    pub(crate) fn request(&self, list: &str, index: usize, resource: &str) -> Option<&str> {
        self.object["spec"][list][index]["resources"]["requests"][resource].as_str()
    }
}

/// Sends an object to a path below the server's.
pub(crate) async fn submit(
    client: &Client,
    method: Method,
    path: &str,
    object: &Value,
) -> Result<Answer> {
    let kind = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let response = client.send(request.body(Body::from(object.to_string().into_bytes()))?).await?;
    let (head, body) = response.into_parts();
    let warnings = head.headers.get_all("warning").iter().filter_map(|value| {
        // 299 - "text"
        let (_, text) = value.to_str().ok()?.split_once(" \"")?;
        Some(text.trim_end_matches('"').replace("\\\"", "\""))
    });
    Ok(Answer {
        code: head.status.as_u16(),
        warnings: warnings.collect(),
        object: serde_json::from_slice(&body.collect_bytes().await?)?,
    })
}

/// Creates a pod.
pub(crate) async fn pod(client: &Client, namespace: &str, pod: &Value) -> Result<Answer> {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    submit(client, Method::POST, &path, pod).await
}

/// Creates a pod that is not kept.
pub(crate) async fn dry_pod(client: &Client, namespace: &str, pod: &Value) -> Result<Answer> {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    submit(client, Method::POST, &path, pod).await
}
