//! An AWS request as the proxy sees it: service, action and parameters, whatever the protocol.

use std::collections::{BTreeMap, BTreeSet};

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use serde_json::Value;

/// A parsed request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Signing name of the service, such as `ec2` or `ssm`; empty when the request is not signed.
    pub service: String,
    /// Such as `CreateFleet`; for REST services the method and path, such as `GET /clusters/c1`.
    pub action: String,
    /// Parameters of a query request, such as `Overrides.1.InstanceType`.
    pub params: BTreeMap<String, String>,
    /// Body of a JSON request, else null.
    pub json: Value,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn parse(parts: Parts, body: Bytes) -> Self {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let target = header("x-amz-target");
        // AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …
        let service = header("authorization")
            .and_then(|value| value.split("Credential=").nth(1))
            .and_then(|scope| scope.split('/').nth(3))
            .unwrap_or_default()
            .to_owned();
        let path_and_query =
            parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let params: BTreeMap<String, String> = match target {
            Some(_) => BTreeMap::new(),
            None => form_urlencoded::parse(&body).into_owned().collect(),
        };
        let action = match (target, params.get("Action")) {
            (Some(target), _) => target.rsplit('.').next().unwrap_or(target).to_owned(),
            (None, Some(action)) => action.clone(),
            (None, None) => format!("{} {}", parts.method, parts.uri.path()),
        };
        let json = match target {
            Some(_) => serde_json::from_slice(&body).unwrap_or_default(),
            None => Value::Null,
        };
        Self {
            service,
            action,
            params,
            json,
            method: parts.method,
            path_and_query,
            headers: parts.headers,
            body,
        }
    }

    /// A query parameter; empty when absent.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// Values of a list such as `InstanceId.1`, `InstanceId.2`, in order.
    pub fn list(&self, name: &str) -> Vec<&str> {
        indices(&self.params, name)
            .into_iter()
            .map(|i| self.param(&format!("{name}.{i}")))
            .collect()
    }

    /// Values of the filter with this name.
    pub fn filter(&self, name: &str) -> Vec<&str> {
        indices(&self.params, "Filter")
            .into_iter()
            .filter(|i| self.param(&format!("Filter.{i}.Name")) == name)
            .flat_map(|i| self.list(&format!("Filter.{i}.Value")))
            .collect()
    }
}

/// Numbers that follow `name.` in the keys, in numeric order.
pub(super) fn indices(params: &BTreeMap<String, String>, name: &str) -> BTreeSet<u32> {
    let prefix = format!("{name}.");
    params
        .range(prefix.clone()..)
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter_map(|(key, _)| key[prefix.len()..].split('.').next()?.parse().ok())
        .collect()
}

/// The parameters under `prefix`, with the prefix cut off.
pub(super) fn under(params: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let prefix = format!("{prefix}.");
    params
        .range(prefix.clone()..)
        .take_while(|(key, _)| key.starts_with(&prefix))
        .map(|(key, value)| (key[prefix.len()..].to_owned(), value.clone()))
        .collect()
}

/// Encodes query parameters as a form body.
pub(super) fn encode(params: &BTreeMap<String, String>) -> Bytes {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish().into()
}
