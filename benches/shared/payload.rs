//! Reviews and policies of usual sizes, for the benchmarks of admission.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use harbinger::policy::{Action, ContainerKind, Policy, Resource, Rule, Snapshot};
use jiff::Timestamp;

/// A pod of about `bytes`: three containers with the fields of real ones, the rest environment.
pub(crate) fn pod(bytes: usize, complete: bool) -> String {
    let requests = if complete { r#""cpu":"250m","memory":"256Mi""# } else { r#""cpu":"250m""# };
    let container = |index: usize, env: &str| {
        format!(
            r#"{{"name":"c{index}","image":"registry.example.com/team/app-{index}:1.2.3","ports":[{{"containerPort":8080,"protocol":"TCP"}}],"env":[{env}],"resources":{{"limits":{{"cpu":"1"}},"requests":{{{requests}}}}},"volumeMounts":[{{"name":"kube-api-access","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}}],"livenessProbe":{{"httpGet":{{"path":"/healthz","port":8080,"scheme":"HTTP"}},"timeoutSeconds":1,"periodSeconds":10}},"imagePullPolicy":"IfNotPresent","securityContext":{{"runAsNonRoot":true,"allowPrivilegeEscalation":false}}}}"#
        )
    };
    let build = |entries: usize| {
        let env: Vec<String> = (0..entries)
            .map(|i| {
                format!(r#"{{"name":"SETTING_{i}","value":"some text of a usual length {i}"}}"#)
            })
            .collect();
        let containers: Vec<String> = (0..3).map(|i| container(i, &env.join(","))).collect();
        format!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"web-5d4f-x","generateName":"web-5d4f-","namespace":"shop","labels":{{"app":"web","pod-template-hash":"5d4f"}},"annotations":{{"example.com/a":"b"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-5d4f","uid":"x","controller":true}}]}},"spec":{{"containers":[{}],"restartPolicy":"Always","serviceAccountName":"default","tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}},"status":{{}}}}"#,
            containers.join(",")
        )
    };
    (0..2000).map(build).find(|pod| pod.len() >= bytes).expect("2000 entries are 200 KB")
}

/// The review of the creation of a pod.
pub(crate) fn review(pod: &str) -> String {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{{"group":"","version":"v1","kind":"Pod"}},"resource":{{"group":"","version":"v1","resource":"pods"}},"namespace":"shop","operation":"CREATE","userInfo":{{"username":"system:serviceaccount:kube-system:replicaset-controller"}},"object":{pod},"oldObject":null,"dryRun":false,"options":{{"kind":"CreateOptions"}}}}}}"#
    )
}

/// Ten policies, of which the last decides.
pub(crate) fn snapshot() -> Snapshot {
    let policy = |index: i32| Policy {
        name: format!("policy-{index}").into(),
        priority: 10 - index,
        namespaces: Some(
            serde_json::from_str(if index == 9 { "{}" } else { r#"{"matchLabels":{"team":"x"}}"# })
                .expect("a selector"),
        ),
        container_kinds: vec![ContainerKind::Main, ContainerKind::Sidecar],
        rules: vec![
            Rule {
                resource: Resource::Cpu,
                action: Action::Deny,
                amount: None,
                learned: None,
                enforce_from: None,
            },
            Rule {
                resource: Resource::Memory,
                action: Action::Default,
                amount: Some(256 << 20),
                learned: None,
                enforce_from: None,
            },
        ],
        zero_means_missing: true,
        ..Policy::default()
    };
    let namespaces: BTreeMap<_, _> = (0..500)
        .map(|i| (format!("ns-{i}"), BTreeMap::new()))
        .chain([("shop".to_owned(), BTreeMap::new())])
        .collect();
    Snapshot::new("bench", (0..10).map(policy).collect(), Arc::new(namespaces), BTreeSet::new())
}

/// A moment.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_780_000_000).expect("a time of this century")
}
