//! The cost of one review: the decision alone and the whole handler, from body to body.
//!
//! Run with `cargo bench --no-default-features --bench admission`. After criterion's own figures it
//! prints the median and the 99th percentile of the handler, which an average hides.

#![expect(clippy::print_stdout, reason = "the percentiles are the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harbinger::admission::{Clock, Endpoint, PolicySource, Reviewer};
use harbinger::policy::{
    Action, ContainerKind, PodView, Policy, RequestMeta, Resource, Rule, Snapshot, decide,
};
use jiff::Timestamp;

/// A pod of about `bytes`: three containers with the fields of real ones, the rest environment.
fn pod(bytes: usize, complete: bool) -> String {
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

fn review(pod: &str) -> String {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{{"group":"","version":"v1","kind":"Pod"}},"resource":{{"group":"","version":"v1","resource":"pods"}},"namespace":"shop","operation":"CREATE","userInfo":{{"username":"system:serviceaccount:kube-system:replicaset-controller"}},"object":{pod},"oldObject":null,"dryRun":false,"options":{{"kind":"CreateOptions"}}}}}}"#
    )
}

/// Ten policies, of which the last decides.
fn snapshot() -> Snapshot {
    let policy = |index: i32| Policy {
        name: format!("policy-{index}").into(),
        priority: 10 - index,
        namespaces: Some(
            serde_json::from_str(if index == 9 { "{}" } else { r#"{"matchLabels":{"team":"x"}}"# })
                .expect("a selector"),
        ),
        objects: None,
        owner_kinds: Vec::new(),
        container_names: Vec::new(),
        container_kinds: vec![ContainerKind::Main, ContainerKind::Sidecar],
        rules: vec![
            Rule {
                resource: Resource::Cpu,
                action: Action::Deny,
                amount: None,
                enforce_from: None,
            },
            Rule {
                resource: Resource::Memory,
                action: Action::Default,
                amount: Some(256 << 20),
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

fn now() -> Timestamp {
    Timestamp::from_second(1_780_000_000).expect("a time of this century")
}

fn bench(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let policies: PolicySource = Arc::new(ArcSwap::from_pointee(snapshot.clone()));
    let clock: Clock = Arc::new(now);
    let reviewer = Reviewer::new(policies, None, Arc::default(), Arc::default(), clock, false);
    let mut percentiles = Vec::new();
    for (size, bytes) in [("4KB", 4 << 10), ("60KB", 60 << 10)] {
        for (state, complete) in [("complete", true), ("patched", false)] {
            let pod = pod(bytes, complete);
            let review = review(&pod);
            let mut group = criterion.benchmark_group(format!("{size}/{state}"));
            group.throughput(Throughput::Bytes(review.len() as u64));
            group.bench_function("decide", |bencher| {
                let view = PodView::parse(&pod).expect("the pod is valid");
                let meta = RequestMeta { namespace: "shop", now: now() };
                bencher.iter(|| black_box(decide(black_box(&view), &meta, &snapshot)));
            });
            group.bench_function("handler", |bencher| {
                bencher.iter(|| reviewer.answer(Endpoint::Mutate, black_box(review.as_bytes())));
            });
            group.finish();
            let mut times: Vec<f64> = (0..5000)
                .map(|_| {
                    let start = Instant::now();
                    black_box(reviewer.answer(Endpoint::Mutate, black_box(review.as_bytes())));
                    start.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            percentiles.push((size, state, review.len(), times[2500], times[4950]));
        }
    }
    for (size, state, bytes, median, high) in percentiles {
        println!("handler {size} {state} ({bytes} bytes): p50 {median:.1} µs, p99 {high:.1} µs");
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
