//! Random pods with every kind of rule.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const KIND: &str = "karpenter.sh/capacity-type";
const ARCH: &str = "kubernetes.io/arch";

/// A resource of which a pod asks as much as it may use.
pub(super) const HUGE_PAGES: &str = "hugepages-2Mi";

/// A pod of a DaemonSet.
pub(super) fn daemon(rng: &mut Pcg64Mcg, at: usize) -> Value {
    let mut pod = plain("system", &json!({"app": format!("daemon-{at}")}), "100m", "64Mi");
    if rng.random_bool(0.7) {
        pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    }
    if rng.random_bool(0.4) {
        pod["spec"]["nodeSelector"] = json!({ARCH: "amd64"});
    }
    pod
}

/// A pod that is bound already: it has no rules about nodes, but some about other pods.
pub(super) fn bound(rng: &mut Pcg64Mcg) -> Value {
    let mut pod = start(rng);
    if rng.random_bool(0.3) {
        pod["spec"]["affinity"] = json!({"podAntiAffinity": required(&[term(rng)])});
    }
    pod
}

/// A pod that waits.
pub(super) fn random(rng: &mut Pcg64Mcg) -> Value {
    let mut pod = start(rng);
    resources(rng, &mut pod);
    node_rules(rng, &mut pod);
    pod_rules(rng, &mut pod);
    if rng.random_bool(0.3) {
        let constraints: Vec<Value> = (0..rng.random_range(1..3)).map(|_| spread(rng)).collect();
        // One constraint for a key and kind is all that the API takes.
        let mut seen = Vec::new();
        let kept: Vec<Value> = constraints
            .into_iter()
            .filter(|c| {
                let key = (c["topologyKey"].clone(), c["whenUnsatisfiable"].clone());
                let new = !seen.contains(&key);
                seen.push(key);
                new
            })
            .collect();
        pod["spec"]["topologySpreadConstraints"] = kept.into();
    }
    if rng.random_bool(0.2) {
        pod["spec"]["priorityClassName"] = "high".into();
        pod["spec"]["priority"] = 1000.into();
    }
    pod
}

/// What a wide cluster has besides: rules over a label that a pool leaves open, and huge pages.
pub(super) fn widen(rng: &mut Pcg64Mcg, pod: &mut Value) {
    let spec = &mut pod["spec"];
    for rules in ["podAffinity", "podAntiAffinity"] {
        let at = format!("/affinity/{rules}/requiredDuringSchedulingIgnoredDuringExecution");
        for term in spec.pointer_mut(&at).and_then(Value::as_array_mut).into_iter().flatten() {
            if rng.random_bool(0.4) {
                term["topologyKey"] = "team".into();
            }
        }
    }
    // Of each key one constraint, so that no two become alike.
    if let Some(first) = spec.pointer_mut("/topologySpreadConstraints/0")
        && rng.random_bool(0.4)
    {
        first["topologyKey"] = "team".into();
    }
    if rng.random_bool(0.3) {
        let pages = pick(rng, &["64Mi", "128Mi"]);
        spec["containers"][0]["resources"] = json!({
            "requests": {"cpu": "100m", "memory": "64Mi"},
            "limits": {HUGE_PAGES: pages},
        });
    }
}

/// A pod of a set that spreads over host names, whatever else it asks.
pub(super) fn spread_out(rng: &mut Pcg64Mcg) -> Value {
    let mut pod = start(rng);
    node_rules(rng, &mut pod);
    let app = pod["metadata"]["labels"]["app"].clone();
    let mut constraints = vec![json!({
        "maxSkew": rng.random_range(1..3), "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": app}},
    })];
    if rng.random_bool(0.4) {
        let mut zones = constraints[0].clone();
        zones["topologyKey"] = ZONE.into();
        constraints.push(zones);
    }
    if rng.random_bool(0.2) {
        constraints[0]["minDomains"] = rng.random_range(2..8).into();
    }
    pod["spec"]["topologySpreadConstraints"] = constraints.into();
    pod
}

fn plain(namespace: &str, labels: &Value, cpu: &str, memory: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": "registry.example.com/app",
                "resources": {"requests": {"cpu": cpu, "memory": memory}},
            }],
        },
    })
}

fn start(rng: &mut Pcg64Mcg) -> Value {
    let namespace = if rng.random_bool(0.8) { "da" } else { "db" };
    let mut labels = json!({"app": pick(rng, &["a", "b", "c"])});
    if rng.random_bool(0.5) {
        labels["version"] = pick(rng, &["1", "2"]).into();
    }
    let cpu = pick(rng, &["50m", "100m", "250m", "500m", "900m", "1500m", "3"]);
    let memory = pick(rng, &["64Mi", "200Mi", "512Mi", "1Gi", "3Gi", "6Gi"]);
    plain(namespace, &labels, cpu, memory)
}

fn pick<'a>(rng: &mut Pcg64Mcg, of: &[&'a str]) -> &'a str {
    of.choose(rng).copied().unwrap_or_default()
}

fn resources(rng: &mut Pcg64Mcg, pod: &mut Value) {
    let container = |name: &str, cpu: &str, memory: &str| {
        json!({
            "name": name, "image": "registry.example.com/app",
            "resources": {"requests": {"cpu": cpu, "memory": memory}},
        })
    };
    match rng.random_range(0..14) {
        0 => pod["spec"]["initContainers"] = json!([container("first", "1800m", "100Mi")]),
        1 => {
            let mut sidecar = container("proxy", "300m", "128Mi");
            sidecar["restartPolicy"] = "Always".into();
            pod["spec"]["initContainers"] = json!([sidecar, container("first", "1", "2Gi")]);
        }
        2 => pod["spec"]["resources"] = json!({"requests": {"cpu": "3500m", "memory": "6500Mi"}}),
        3 => {
            pod["spec"]["containers"][0]["resources"] = json!({
                "requests": {"cpu": "100m", "example.com/device": "1"},
                "limits": {"example.com/device": "1", "memory": "300Mi"},
            });
        }
        4 => {
            pod["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] =
                pick(rng, &["5Gi", "9Gi"]).into();
        }
        5 => {
            let port = *[8080, 9090].choose(rng).unwrap_or(&80);
            let mut ports = json!([{"containerPort": port, "hostPort": port}]);
            if rng.random_bool(0.3) {
                ports[0]["hostIP"] = "10.0.0.1".into();
            }
            pod["spec"]["containers"][0]["ports"] = ports;
        }
        6 => pod["spec"]["containers"][0]["resources"] = json!({}),
        _ => {}
    }
}

/// One requirement about node labels.
fn expression(rng: &mut Pcg64Mcg) -> Value {
    match rng.random_range(0..9) {
        0 => json!({"key": ZONE, "operator": "In", "values": [pick(rng, &["a", "b"]), "c"]}),
        1 => json!({"key": ZONE, "operator": "NotIn", "values": [pick(rng, &["a", "b", "c"])]}),
        2 => json!({"key": "team", "operator": "In", "values": [pick(rng, &["x", "y", "z"])]}),
        3 => json!({"key": "team", "operator": "NotIn", "values": [pick(rng, &["x", "y"])]}),
        4 => json!({"key": "team", "operator": pick(rng, &["Exists", "DoesNotExist"])}),
        5 => json!({"key": ARCH, "operator": "In", "values": [pick(rng, &["amd64", "arm64"])]}),
        6 => json!({"key": KIND, "operator": "In", "values": [pick(rng, &["spot", "on-demand"])]}),
        7 => {
            let operator = pick(rng, &["Gt", "Lt"]);
            json!({"key": "karpenter.k8s.aws/instance-cpu", "operator": operator, "values": ["3"]})
        }
        _ => {
            let types = ["c1.xlarge", pick(rng, &["r1.large", "g1.2xlarge"])];
            json!({"key": "node.kubernetes.io/instance-type", "operator": "In", "values": types})
        }
    }
}

fn node_rules(rng: &mut Pcg64Mcg, pod: &mut Value) {
    if rng.random_bool(0.3) {
        pod["spec"]["tolerations"] = match rng.random_range(0..4) {
            0 => json!([{"operator": "Exists"}]),
            1 => json!([{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}]),
            2 => json!([{"key": "dedicated", "value": "other"}]),
            _ => json!([{"key": "dedicated", "operator": "Equal", "value": "x"}]),
        };
    }
    if rng.random_bool(0.25) {
        pod["spec"]["nodeSelector"] = match rng.random_range(0..5) {
            0 => json!({ZONE: pick(rng, &["a", "b", "c", "d"])}),
            1 => json!({ARCH: pick(rng, &["amd64", "arm64"])}),
            2 => json!({"team": pick(rng, &["x", "y", "z", "nobody"])}),
            3 => json!({KIND: pick(rng, &["spot", "on-demand"])}),
            _ => json!({"karpenter.sh/nodepool": pick(rng, &["main", "special"])}),
        };
    }
    if rng.random_bool(0.25) {
        let terms: Vec<Value> = (0..rng.random_range(1..3))
            .map(|_| {
                let all: Vec<Value> =
                    (0..rng.random_range(1..3)).map(|_| expression(rng)).collect();
                json!({"matchExpressions": all})
            })
            .collect();
        pod["spec"]["affinity"]["nodeAffinity"] =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    }
    if rng.random_bool(0.1) {
        pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"weight": 5, "preference": {"matchExpressions": [expression(rng)]}}]);
    }
}

/// A term about other pods.
fn term(rng: &mut Pcg64Mcg) -> Value {
    let mut term = json!({
        "topologyKey": pick(rng, &[ZONE, HOST, HOST, KIND]),
        "labelSelector": selector(rng),
    });
    // The API takes a key either in the selector or as one to match.
    let free = !term["labelSelector"].to_string().contains("version");
    match rng.random_range(0..8) {
        0 => {
            let one_of = json!({"key": "team", "operator": "In", "values": ["x", "y"]});
            term["namespaceSelector"] = json!({"matchExpressions": [one_of]});
        }
        1 => term["namespaceSelector"] = json!({"matchLabels": {"team": pick(rng, &["x", "y"])}}),
        2 => term["namespaces"] = json!(["db"]),
        3 if free => term["matchLabelKeys"] = json!(["version"]),
        4 if free => term["mismatchLabelKeys"] = json!(["version"]),
        _ => {}
    }
    term
}

fn selector(rng: &mut Pcg64Mcg) -> Value {
    match rng.random_range(0..8) {
        0 => json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
        1 => {
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a", "b"]}]})
        }
        2 => {
            json!({"matchExpressions": [{"key": "version", "operator": "DoesNotExist"}], "matchLabels": {"app": "c"}})
        }
        _ => json!({"matchLabels": {"app": pick(rng, &["a", "b", "c"])}}),
    }
}

fn required(terms: &[Value]) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
}

fn preferred(term: &Value) -> Value {
    json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm": term}]})
}

fn pod_rules(rng: &mut Pcg64Mcg, pod: &mut Value) {
    if rng.random_bool(0.2) {
        let mut terms = vec![term(rng)];
        if rng.random_bool(0.2) {
            terms.push(term(rng));
        }
        pod["spec"]["affinity"]["podAffinity"] = required(&terms);
    }
    if rng.random_bool(0.25) {
        pod["spec"]["affinity"]["podAntiAffinity"] = required(&[term(rng)]);
    }
    if rng.random_bool(0.1) {
        let kind = pick(rng, &["podAffinity", "podAntiAffinity"]);
        let soft = preferred(&term(rng));
        for (field, value) in soft.as_object().into_iter().flatten() {
            pod["spec"]["affinity"][kind][field] = value.clone();
        }
    }
}

fn spread(rng: &mut Pcg64Mcg) -> Value {
    let required = rng.random_bool(0.75);
    let mut spread = json!({
        "maxSkew": rng.random_range(1..3),
        "topologyKey": pick(rng, &[ZONE, ZONE, HOST, KIND]),
        "whenUnsatisfiable": if required { "DoNotSchedule" } else { "ScheduleAnyway" },
        "labelSelector": selector(rng),
    });
    if required && rng.random_bool(0.2) {
        spread["minDomains"] = rng.random_range(1..4).into();
    }
    if rng.random_bool(0.2) {
        spread["nodeAffinityPolicy"] = "Ignore".into();
    }
    if rng.random_bool(0.3) {
        spread["nodeTaintsPolicy"] = "Honor".into();
    }
    if rng.random_bool(0.2) && !spread["labelSelector"].to_string().contains("version") {
        spread["matchLabelKeys"] = json!(["version"]);
    }
    spread
}
