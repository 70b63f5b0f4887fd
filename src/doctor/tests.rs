use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::*;
use crate::certs;

const NAMESPACE: &str = "harbinger-system";

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// What the chart installs, with everything well.
fn healthy() -> (Installation, certs::Certificates) {
    let made = certs::issue(&certs::Request::new("harbinger", NAMESPACE, now())).unwrap();
    let hook = |name: &str, group: &str, resource: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "timeoutSeconds": 2, "sideEffects": "NoneOnDryRun",
            "clientConfig": { "service": { "name": "harbinger", "namespace": NAMESPACE, "port": 443 } },
            "namespaceSelector": { "matchExpressions": [{ "key": "kubernetes.io/metadata.name",
                "operator": "NotIn", "values": ["kube-system", NAMESPACE] }] },
            "rules": [{ "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": [resource] }],
        })
    };
    let mutating = json!({ "metadata": { "name": "zz-harbinger" },
        "webhooks": [hook("pods.mutate.harbinger.sh", "", "pods")] });
    let validating = json!({ "metadata": { "name": "harbinger" }, "webhooks": [
        hook("pods.validate.harbinger.sh", "", "pods"),
        hook("workloads.advise.harbinger.sh", "apps", "deployments") ] });
    let deployment = |name: &str, namespace: &str, container: Value, labels: Value| {
        json!({ "metadata": { "name": name, "namespace": namespace, "labels": labels },
            "spec": { "replicas": 2, "selector": {}, "template": { "metadata": { "labels": labels },
                "spec": { "containers": [container] } } },
            "status": { "readyReplicas": 2 } })
    };
    let own = json!({ "name": "webhook", "args": ["webhook", "--certificate-secret=tls"],
        "ports": [{ "name": "webhook", "containerPort": 8443 }] });
    let mut installation = Installation {
        namespace: NAMESPACE.to_owned(),
        mutating: vec![read(mutating)],
        validating: vec![read(validating)],
        namespaces: ["default", "kube-system", NAMESPACE]
            .map(|name| {
                let label = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
                (name.to_owned(), BTreeMap::from([label]))
            })
            .into(),
        daemon_sets: vec![read(json!({
            "metadata": { "name": "aws-node", "namespace": "kube-system" },
            "spec": { "selector": {}, "template": { "spec": { "containers": [] } } } }))],
        deployments: vec![
            read(deployment(
                "coredns",
                "kube-system",
                json!({ "name": "c" }),
                json!({ "k8s-app": "kube-dns" }),
            )),
            read(deployment("harbinger", NAMESPACE, own, json!({ "app": "harbinger" }))),
        ],
        service: Some(read(
            json!({ "spec": { "ports": [{ "port": 443, "targetPort": "webhook" }] } }),
        )),
        slices: vec![read(json!({ "addressType": "IPv4", "endpoints": [
            { "addresses": ["10.0.0.1"], "conditions": { "ready": true } }] }))],
        budgets: vec![read(json!({ "metadata": { "name": "b", "namespace": NAMESPACE },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "harbinger" } } } }))],
        quotas: Vec::new(),
        serving: Some(("tls".to_owned(), ServingSecret::Certificate(made.certificate.clone()))),
        probe: Probe::Answered,
    };
    bundle(&mut installation, &made.ca);
    (installation, made)
}

fn clients(installation: &mut Installation) -> Vec<&mut registration::WebhookClientConfig> {
    let mutating = installation.mutating.iter_mut().flat_map(|c| c.webhooks.iter_mut().flatten());
    let validating =
        installation.validating.iter_mut().flat_map(|c| c.webhooks.iter_mut().flatten());
    let mutating = mutating.map(|hook| &mut hook.client_config);
    mutating.chain(validating.map(|hook| &mut hook.client_config)).collect()
}

fn bundle(installation: &mut Installation, ca: &str) {
    for client in clients(installation) {
        client.ca_bundle = Some(ByteString(ca.as_bytes().to_vec()));
    }
}

/// What is wrong, as `severity check`, and the texts.
fn wrong(installation: &Installation) -> (Vec<String>, String) {
    let findings = examine(installation, now());
    let bad: Vec<&Finding> = findings.iter().filter(|f| f.severity != Severity::Fine).collect();
    assert!(bad.iter().all(|f| !f.fix.is_empty() || f.check == "answer"), "{bad:#?}");
    let mut names: Vec<String> =
        bad.iter().map(|f| format!("{:?} {}", f.severity, f.check)).collect();
    names.dedup();
    (names, bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_healthy_installation_is_fine_in_every_check() {
    let (installation, _) = healthy();
    let findings = examine(&installation, now());
    assert!(findings.iter().all(|f| f.severity == Severity::Fine), "{findings:#?}");
    let checks: Vec<&str> = findings.iter().map(|f| f.check).collect();
    assert_eq!(
        checks,
        ["registrations", "scope", "certificate", "port", "answer", "replicas", "quota"]
    );
    assert_eq!(probe_namespace(&installation).as_deref(), Some("default"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_known_shape_is_found() {
    type Break = fn(&mut Installation, &certs::Certificates);
    let table: &[(&str, Break, &[&str], &str)] = &[
        (
            "scope that refuses",
            |i, _| {
                let hook = &mut i.mutating[0].webhooks.as_mut().unwrap()[0];
                (hook.namespace_selector, hook.failure_policy) = (None, Some("Fail".into()));
            },
            &["Error scope"],
            "kube-system/aws-node (network), kube-system/coredns (DNS), harbinger-system/harbinger (our own)",
        ),
        (
            "scope that waits",
            |i, _| {
                i.validating[0].webhooks.as_mut().unwrap()[0].namespace_selector = None;
            },
            &["Warning scope"],
            "waits 2 s",
        ),
        (
            "another program's scope",
            |i, _| {
                let mut other = i.mutating[0].clone();
                other.metadata.name = Some("other".into());
                let hook = &mut other.webhooks.as_mut().unwrap()[0];
                hook.name = "pods.example.com".into();
                (hook.namespace_selector, hook.failure_policy) = (None, None);
                i.mutating.push(other);
            },
            &["Warning scope"],
            "pods.example.com of other",
        ),
        (
            "another authority",
            |i, _| {
                let other =
                    certs::issue(&certs::Request::new("harbinger", NAMESPACE, now())).unwrap();
                bundle(i, &other.ca);
            },
            &["Error authority"],
            "invalid peer certificate",
        ),
        (
            "no authority",
            |i, _| {
                for client in clients(i) {
                    client.ca_bundle = None;
                }
            },
            &["Error authority"],
            "has no caBundle",
        ),
        (
            "a certificate that ends soon",
            |i, made| {
                let mut request = certs::Request::new("harbinger", NAMESPACE, now());
                request.serving_lifetime = std::time::Duration::from_hours(50);
                let renewed = certs::renew(&request, &made.ca, &made.ca_key).unwrap();
                i.serving = Some(("tls".into(), ServingSecret::Certificate(renewed.certificate)));
            },
            &["Warning expiry"],
            "ends 2026-06-03T14:00:00Z",
        ),
        (
            "a certificate that ended",
            |i, made| {
                let past = now() - jiff::Span::new().hours(100);
                let mut request = certs::Request::new("harbinger", NAMESPACE, past);
                request.serving_lifetime = std::time::Duration::from_hours(50);
                let renewed = certs::renew(&request, &made.ca, &made.ca_key).unwrap();
                i.serving = Some(("tls".into(), ServingSecret::Certificate(renewed.certificate)));
            },
            &["Error expiry", "Error authority"],
            "ended 2026-05-30T10:00:00Z",
        ),
        (
            "no certificate",
            |i, _| {
                i.serving = Some(("tls".into(), ServingSecret::Absent));
            },
            &["Error certificate"],
            "has no tls.crt",
        ),
        (
            "a port that the Service lacks",
            |i, _| {
                i.service = Some(read(
                    json!({ "spec": { "ports": [{ "port": 8443, "targetPort": "webhook" }] } }),
                ));
            },
            &["Error port"],
            "dialled at port 443",
        ),
        (
            "a port that nobody opens",
            |i, _| {
                i.service = Some(read(
                    json!({ "spec": { "ports": [{ "port": 443, "targetPort": 9443 }] } }),
                ));
            },
            &["Error port"],
            "leads to port 9443",
        ),
        ("no Service", |i, _| i.service = None, &["Error port"], "does not exist"),
        (
            "nobody is ready",
            |i, _| {
                i.slices[0].endpoints.as_mut().unwrap()[0].conditions.as_mut().unwrap().ready =
                    Some(false);
            },
            &["Error port"],
            "no ready endpoint",
        ),
        ("silence", |i, _| i.probe = Probe::Silent, &["Error answer"], "NetworkPolicy"),
        (
            "a quota that forbids the priority",
            |i, _| {
                i.deployments[1].status = Some(read(json!({ "readyReplicas": 2, "conditions": [{
                "type": "ReplicaFailure", "status": "True",
                "message": "insufficient quota to match these scopes: [{PriorityClass In [system-cluster-critical]}]" }] })));
            },
            &["Error quota"],
            "scopeSelector PriorityClass In [system-cluster-critical]",
        ),
        (
            "a quota that is full",
            |i, _| {
                i.quotas.push(read(json!({ "metadata": { "name": "q" },
                "status": { "hard": { "pods": "2" }, "used": { "pods": "2" } } })));
            },
            &["Warning quota"],
            "2 of 2",
        ),
        (
            "a budget that lets nobody go",
            |i, _| {
                i.budgets[0].spec.as_mut().unwrap().min_available = Some(read(json!(2)));
            },
            &["Warning replicas"],
            "minAvailable 2",
        ),
        (
            "one replica",
            |i, _| {
                i.deployments[1].spec.replicas = Some(1);
            },
            &["Warning replicas"],
            "nobody answers while it is replaced",
        ),
        (
            "a long wait",
            |i, _| {
                i.mutating[0].webhooks.as_mut().unwrap()[0].timeout_seconds = Some(30);
            },
            &["Warning timeout"],
            "30 s",
        ),
        (
            "a registration that is gone",
            |i, _| {
                i.validating[0].webhooks.as_mut().unwrap().truncate(1);
            },
            &["Warning registrations"],
            "/advise/workloads is never asked",
        ),
        (
            "nothing is installed",
            |i, _| {
                i.mutating.clear();
                i.validating.clear();
            },
            &["Error registrations"],
            "no webhook of Harbinger",
        ),
    ];
    for (name, break_it, expected, part) in table {
        let (mut installation, made) = healthy();
        break_it(&mut installation, &made);
        let (found, text) = wrong(&installation);
        assert_eq!(&found, expected, "{name}: {text}");
        assert!(text.contains(part), "{name}: {part:?} is not in {text}");
    }
}
