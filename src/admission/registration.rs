//! The registrations of the webhook, as data. The chart is tested against them.
//!
//! Three webhooks with one purpose each, all with policy `Ignore` and two seconds: a default that
//! is lost can be repaired, a cluster that cannot create pods cannot. Only creation is registered:
//! the resources of a pod do not change later, and a webhook on updates, bindings or evictions can
//! stop a cluster. Conditions keep pods that need nothing from costing a call at all.

use serde_json::{Value, json};

/// How the API server reaches the webhook.
#[derive(Clone, Debug)]
pub enum ClientConfig {
    /// A Service in the cluster.
    Service {
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// Port of the Service.
        port: u16,
    },
    /// A base URL, such as `https://10.0.0.1:9443`.
    Url(String),
}

/// What to register.
#[derive(Clone, Debug)]
pub struct Registration {
    /// How the API server reaches the webhook.
    pub client: ClientConfig,
    /// PEM of the authorities that it trusts. Absent where another controller fills it in; an empty
    /// value would make the two fight.
    pub ca_bundle: Option<String>,
    /// Namespaces whose objects are never sent: those that the cluster and the webhook need to
    /// start.
    pub excluded_namespaces: Vec<String>,
    /// Whether to send pods that lack an ephemeral-storage request only. Most pods do.
    pub ephemeral_storage: bool,
    /// Whether to send pods with a container that serves and has no `preStop` hook, too.
    pub pre_stop: bool,
}

/// The mutating and the validating configuration.
pub fn registration(registration: &Registration) -> (Value, Value) {
    let pods = json!([{
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
        "scope": "Namespaced",
    }]);
    let workloads = json!([
        {
            "apiGroups": ["apps"],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["daemonsets", "deployments", "replicasets", "statefulsets"],
            "scope": "Namespaced",
        },
        {
            "apiGroups": ["apps"],
            "apiVersions": ["v1"],
            "operations": ["UPDATE"],
            "resources": ["deployments/scale", "replicasets/scale", "statefulsets/scale"],
            "scope": "Namespaced",
        },
        {
            "apiGroups": ["batch"],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["cronjobs", "jobs"],
            "scope": "Namespaced",
        },
    ]);
    let conditions = pod_conditions(registration.ephemeral_storage, false);
    let to_mutate = pod_conditions(registration.ephemeral_storage, registration.pre_stop);
    let mut mutate =
        webhook(registration, "pods.mutate.harbinger.sh", "/mutate/pods", &pods, &to_mutate);
    // Containers that a later webhook adds are seen in a second round.
    mutate["reinvocationPolicy"] = "IfNeeded".into();
    let validate =
        webhook(registration, "pods.validate.harbinger.sh", "/validate/pods", &pods, &conditions);
    let advise = webhook(
        registration,
        "workloads.advise.harbinger.sh",
        "/advise/workloads",
        &workloads,
        &json!([]),
    );
    // Configurations are called in the order of their names, so this one comes after injectors.
    let mutating = configuration("MutatingWebhookConfiguration", "zz-harbinger", &[mutate]);
    let validating =
        configuration("ValidatingWebhookConfiguration", "harbinger", &[validate, advise]);
    (mutating, validating)
}

fn configuration(kind: &str, name: &str, webhooks: &[Value]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": name },
        "webhooks": webhooks,
    })
}

fn webhook(
    registration: &Registration,
    name: &str,
    path: &str,
    rules: &Value,
    conditions: &Value,
) -> Value {
    let mut client = match &registration.client {
        ClientConfig::Service { name, namespace, port } => json!({
            "service": { "name": name, "namespace": namespace, "path": path, "port": port },
        }),
        ClientConfig::Url(base) => {
            json!({ "url": format!("{}{path}", base.trim_end_matches('/')) })
        }
    };
    if let Some(bundle) = &registration.ca_bundle {
        use base64::Engine;
        client["caBundle"] =
            base64::engine::general_purpose::STANDARD.encode(bundle.as_bytes()).into();
    }
    // An expression without values would be refused.
    let selector = if registration.excluded_namespaces.is_empty() {
        json!({})
    } else {
        json!({
            "matchExpressions": [{
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": registration.excluded_namespaces,
            }],
        })
    };
    let mut webhook = json!({
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "namespaceSelector": selector,
        "objectSelector": {},
        "rules": rules,
        // Intents are dropped on a dry run.
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": 2,
    });
    if conditions.as_array().is_some_and(|conditions| !conditions.is_empty()) {
        webhook["matchConditions"] = conditions.clone();
    }
    webhook
}

/// Conditions under which a pod is sent. They are total: a field that is absent is never read.
fn pod_conditions(ephemeral_storage: bool, pre_stop: bool) -> Value {
    let lacks: Vec<String> = ["cpu", "memory"]
        .into_iter()
        .chain(ephemeral_storage.then_some("ephemeral-storage"))
        .map(lacks_request)
        .chain(pre_stop.then(|| LACKS_PRE_STOP.to_owned()))
        .collect();
    json!([
        {
            "name": "is-not-a-mirror-pod",
            "expression": "!has(object.metadata.annotations) || \
                           !('kubernetes.io/config.mirror' in object.metadata.annotations)",
        },
        {
            "name": "is-not-bound",
            "expression": "!has(object.spec.nodeName) || object.spec.nodeName == ''",
        },
        {
            "name": "is-not-critical",
            "expression": "!has(object.spec.priorityClassName) || !(object.spec.priorityClassName \
                           in ['system-cluster-critical', 'system-node-critical'])",
        },
        { "name": "lacks-a-request", "expression": lacks.join(" || ") },
    ])
}

/// Whether some container has ports and no hook.
const LACKS_PRE_STOP: &str = "object.spec.containers.exists(c, has(c.ports) && c.ports.size() > 0 && \
                              !(has(c.lifecycle) && has(c.lifecycle.preStop)))";

/// Whether some container lacks a request for the resource that the pod as a whole does not make.
/// The API server writes every zero as `0`.
fn lacks_request(resource: &str) -> String {
    let has = |parent: &str| {
        format!(
            "has({parent}.resources) && has({parent}.resources.requests) && \
             '{resource}' in {parent}.resources.requests && \
             {parent}.resources.requests['{resource}'] != '0'"
        )
    };
    let container = has("c");
    let containers = format!(
        "object.spec.containers.exists(c, !({container})) || \
         (has(object.spec.initContainers) && object.spec.initContainers.exists(c, !({container})))"
    );
    if resource == "ephemeral-storage" {
        return format!("({containers})");
    }
    let pod = has("object.spec");
    format!("(!({pod}) && ({containers}))")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_exact() {
        let (mutating, validating) = registration(&Registration {
            client: ClientConfig::Service {
                name: "harbinger".into(),
                namespace: "harbinger-system".into(),
                port: 443,
            },
            ca_bundle: None,
            excluded_namespaces: ["kube-system", "kube-node-lease", "kube-public"]
                .map(str::to_owned)
                .to_vec(),
            ephemeral_storage: false,
            pre_stop: false,
        });
        insta::assert_json_snapshot!("mutating", mutating);
        insta::assert_json_snapshot!("validating", validating);
    }

    #[test]
    fn the_bundle_is_absent_or_base64_and_the_url_has_one_slash() {
        let (mutating, _) = registration(&Registration {
            client: ClientConfig::Url("https://10.0.0.1:9443/".into()),
            ca_bundle: Some("pem".into()),
            excluded_namespaces: vec![],
            ephemeral_storage: true,
            pre_stop: true,
        });
        let client = &mutating["webhooks"][0]["clientConfig"];
        assert_eq!(client["url"], "https://10.0.0.1:9443/mutate/pods");
        assert_eq!(client["caBundle"], "cGVt");
        assert_eq!(mutating["webhooks"][0]["namespaceSelector"], json!({}));
        let lacks = mutating["webhooks"][0]["matchConditions"][3]["expression"].as_str().unwrap();
        assert!(lacks.contains("ephemeral-storage") && lacks.contains("preStop"));
    }
}
