//! Advice on workloads, as who applies them reads it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use testbed::poll;

use super::submit::{Answer, submit};
use super::world::{DEADLINE, World};

/// A workload of three pods (of a DaemonSet one on each node) with these requests and one port.
fn workload(kind: &str, name: &str, cpu: &str) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "app", "image": "app", "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": cpu, "memory": "2Gi"}},
                }]},
            },
        },
    });
    if kind == "Deployment" {
        object["spec"]["replicas"] = 3.into();
    }
    object
}

/// A scan of the live cluster finds what is there.
async fn scanned(world: &World, namespace: &str) -> Result<()> {
    let bare = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: forgetful, namespace: {namespace}}}
spec: {{containers: [{{name: app, image: app}}]}}
"
    );
    world.apply(&bare).await?;
    let scan = async |form: &str| -> Result<String> {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_harbinger"))
            .args(["scan", "--cluster", "-o", form])
            .env("KUBECONFIG", world.plane.kubeconfig())
            .output()
            .await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let report: Value = serde_json::from_str(&scan("json").await?)?;
    let offenders = report["offenders"].as_array().context("no offenders")?;
    ensure!(offenders.len() == 1 && offenders[0]["name"] == "forgetful", "{report:#}");
    ensure!(report["modes"][0]["nodes"].as_i64() > Some(0), "{report:#}");
    let advice = report["advice"].as_array().context("no advice")?;
    ensure!(
        advice.iter().any(|told| told["name"] == "load" && told["code"] == "HB102"),
        "{report:#}"
    );
    let page = scan("html").await?;
    ensure!(page.contains("forgetful") && page.contains("<svg"), "{page}");
    Ok(())
}

/// What is read when the object is created; it is not kept.
async fn dry(world: &World, namespace: &str, object: &Value) -> Result<Answer> {
    let plural = format!("{}s", object["kind"].as_str().context("no kind")?.to_lowercase());
    let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}?dryRun=All");
    submit(&world.plane.client(), Method::POST, &path, object).await
}

/// The codes, and the line of each.
fn of<'a>(answer: &'a Answer, code: &str) -> Option<&'a str> {
    answer.warnings.iter().find_map(|line| line.strip_prefix(code)?.strip_prefix(": "))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_applies_a_workload_reads_what_it_will_meet() -> Result<()> {
    let mut world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    let namespace = world.plane.namespace("shop").await?;
    // A quote has 150 ms; of all types it takes most of them unoptimised.
    let few = r#"[{"op": "add", "path": "/spec/template/spec/requirements/-", "value": {"key":
        "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["c6i", "m6i"]}}]"#;
    world.plane.kubectl(&["patch", "nodepool/default", "--type=json", "-p", few], "").await?;
    world
        .apply(&format!(
            "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: web, namespace: {namespace}}}
spec: {{minAvailable: 3, selector: {{matchLabels: {{app: web}}}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: blind, namespace: {namespace}}}
spec: {{maxReplicas: 9, scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: blind}}}}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {{name: high}}
value: 1000
"
        ))
        .await?;

    let mut web = workload("Deployment", "web", "1");
    web["spec"]["template"]["spec"]["priorityClassName"] = "high".into();
    let answer = poll::until("all advice", DEADLINE, async || {
        let answer = dry(&world, &namespace, &web).await?;
        ensure!(answer.code == 201, "{answer:?}");
        for code in ["HB102", "HB201", "HB301", "HB401"] {
            ensure!(of(&answer, code).is_some(), "no {code}: {:?}", answer.warnings);
        }
        Ok(answer)
    })
    .await
    .with_context(|| world.webhook.log_tail(20))?;
    println!("{:#?}", answer.warnings);
    ensure!(answer.warnings.len() == 4, "{:?}", answer.warnings);
    let cost = of(&answer, "HB102").context("no HB102")?;
    ensure!(
        cost.starts_with("3 pods need 1 node of their own (1 ") && cost.ends_with("/h"),
        "{cost}"
    );
    let budget = of(&answer, "HB201").context("no HB201")?;
    ensure!(budget.contains("(minAvailable 3) lets none of 3 pods go"), "{budget}");

    // What it costs the person who waits.
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        dry(&world, &namespace, &web).await?;
        times.push(start.elapsed());
    }
    times.sort();
    println!("a dry run with advice: median {:?}, worst {:?}", times[10], times[19]);

    let status = std::fs::read_to_string(format!("/proc/{}/status", world.webhook.pid()))?;
    println!("the webhook: {:?}", status.lines().find(|line| line.starts_with("VmRSS")));

    web["metadata"]["annotations"] = json!({"harbinger.sh/silence-advice": "HB102,HB301,HB401"});
    let answer = dry(&world, &namespace, &web).await?;
    ensure!(answer.warnings.len() == 1 && of(&answer, "HB201").is_some(), "{:?}", answer.warnings);

    let answer = dry(&world, &namespace, &workload("Deployment", "large", "400")).await?;
    let nowhere = of(&answer, "HB101").with_context(|| format!("{:?}", answer.warnings))?;
    ensure!(nowhere.contains("NodePool default: no instance type is large enough"), "{nowhere}");
    ensure!(of(&answer, "HB102").is_none(), "{:?}", answer.warnings);

    let mut blind = workload("Deployment", "blind", "1");
    let requests = json!({"memory": "2Gi"});
    blind["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] = requests;
    let answer = dry(&world, &namespace, &blind).await?;
    for code in ["HB001", "HB203"] {
        ensure!(of(&answer, code).is_some(), "no {code}: {:?}", answer.warnings);
    }

    // Once there are nodes, a DaemonSet has a price.
    world.deploy(&namespace, "load", 3).await?;
    world.running(&namespace, 3).await?;
    let agent = workload("DaemonSet", "agent", "100m");
    let answer = poll::until("the DaemonSet's price", DEADLINE, async || {
        let answer = dry(&world, &namespace, &agent).await?;
        ensure!(of(&answer, "HB104").is_some(), "{:?}", answer.warnings);
        Ok(answer)
    })
    .await?;
    let fleet = of(&answer, "HB104").context("no HB104")?;
    println!("{fleet}");
    ensure!(fleet.starts_with("takes cpu 100m, memory 2Gi on 1 node, $0.0"), "{fleet}");

    scanned(&world, &namespace).await?;

    // Nobody is there to ask: the rest of the advice comes all the same, and soon.
    world.provisioner.stop(Duration::from_secs(20)).await?;
    let start = Instant::now();
    let answer = dry(&world, &namespace, &web).await?;
    println!("without the provisioner: {:?}", start.elapsed());
    ensure!(answer.code == 201 && of(&answer, "HB201").is_some(), "{answer:?}");
    ensure!(of(&answer, "HB104").is_none() && of(&answer, "HB102").is_none(), "{answer:?}");
    world.webhook.ensure_running()
}
