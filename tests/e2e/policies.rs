//! Policies on the real API server: conditions, exemptions, the status, and the cap.

use anyhow::{Context, Result, ensure};
use harbinger::api::requestpolicy::{RequestPolicy, RequestPolicyStatus};
use http::Method;
use kube::config::KubeConfigOptions;
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::install::Chart;
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;
use testbed::process::Process;

use super::door::app;
use super::submit::{Answer, dry_pod, pod, submit};
use super::world::DEADLINE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_harbinger");

const POLICIES: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: cured}
  spec:
    match: {images: ['registry.example.com/*'], priorityClasses: [batch]}
    matchConditions:
    - {name: team, expression: "namespaceObject.metadata.labels.team == 'web'"}
    - {name: tier, expression: "object.metadata.labels.tier == 'back'"}
    rules: [{resource: cpu, action: Default, default: 50m}]
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: refused}
  spec:
    match: {objectSelector: {matchLabels: {tier: front}}}
    rules:
    - {resource: memory, action: Deny}
    - {resource: cpu, action: Deny, enforceFrom: '2999-01-01T00:00:00Z'}
    allowOptOut: true
    exempt: {groups: ['system:serviceaccounts:trusted']}
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: broken}
  spec:
    matchConditions: [{name: typo, expression: "pod.metadata.name == 'a'"}]
    rules: [{resource: cpu, action: Deny}]
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: dear}
  spec:
    matchConditions:
    - {name: nested, expression: "object.a.all(a, object.a.all(b, object.a.all(c, object.a.all(d, a == d))))"}
    rules: [{resource: cpu, action: Deny}]
"#;

struct World {
    webhook: Process,
    chart: Chart,
    client: Client,
    shop: String,
    plane: Plane,
}

impl World {
    async fn start() -> Result<Self> {
        let plane = Plane::start(PlaneOptions::default()).await?;
        let chart =
            Chart::install(&plane, PROGRAM, &["certificates.mode=selfManaged"], &[]).await?;
        let shop = plane.namespace("shop").await?;
        plane.kubectl(&["label", "namespace", &shop, "team=web"], "").await?;
        plane.kubectl(&["create", "priorityclass", "batch", "--value=5"], "").await?;
        plane.kubectl(&["apply", "--validate=strict", "-f", "-"], POLICIES).await?;
        let webhook = chart.run(&plane, "webhook", Vec::new()).await?;
        let client = plane.client();
        Ok(Self { webhook, chart, client, shop, plane })
    }

    /// A pod of one container, real.
    async fn make(&self, name: &str, tier: Option<&str>, resources: Value) -> Result<Answer> {
        let labels = tier.map_or(json!({}), |tier| json!({"tier": tier}));
        let mut object = app(&labels, &resources);
        object["metadata"]["name"] = name.into();
        object["spec"]["containers"][0]["image"] = "registry.example.com/app:1".into();
        object["spec"]["priorityClassName"] = "batch".into();
        pod(&self.client, &self.shop, &object).await
    }

    async fn status(&self, name: &str) -> Result<RequestPolicyStatus> {
        let policy = Api::<RequestPolicy>::all(self.client.clone()).get(name).await?;
        policy.status.context("no status")
    }
}

fn condition(status: &RequestPolicyStatus, name: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.type_ == name);
    found.map_or("absent".to_owned(), |c| format!("{:?} {}", c.status, c.message))
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_selected_counted_and_capped() -> Result<()> {
    let mut world = World::start().await?;
    poll::until("policies in force", DEADLINE, async || {
        let front = app(&json!({"tier": "front"}), &json!({}));
        let answer = dry_pod(&world.client, &world.shop, &front).await?;
        ensure!(answer.code == 422, "{answer:?}");
        Ok(())
    })
    .await
    .with_context(|| world.webhook.log_tail(20))?;

    let answer = world.make("back", Some("back"), json!({})).await?;
    ensure!(answer.request("containers", 0, "cpu") == Some("50m"), "{answer:?}");
    // The second condition reads a label that is not there.
    let answer = world.make("none", None, json!({})).await?;
    ensure!(answer.code == 201 && answer.warnings.is_empty(), "{answer:?}");
    ensure!(answer.request("containers", 0, "cpu").is_none(), "{answer:?}");
    // Another image.
    let other = app(&json!({"tier": "back"}), &json!({}));
    let answer = dry_pod(&world.client, &world.shop, &other).await?;
    ensure!(answer.code == 201 && answer.request("containers", 0, "cpu").is_none(), "{answer:?}");
    let answer = world.make("front", Some("front"), json!({})).await?;
    ensure!(answer.code == 422, "{answer:?}");
    let answer = world.make("late", Some("front"), json!({"requests": {"memory": "1Gi"}})).await?;
    ensure!(answer.code == 201, "{answer:?}");
    ensure!(answer.warnings[0].contains("refused from 2999-01-01"), "{:?}", answer.warnings);

    trusted(&world).await?;
    counted(&world).await?;
    capped(&mut world).await
}

/// Members of a group are exempt; others with the same rights are not.
async fn trusted(world: &World) -> Result<()> {
    for (namespace, code) in [("trusted", 201), ("other", 422)] {
        world.plane.kubectl(&["create", "namespace", namespace], "").await?;
        world.plane.kubectl(&["create", "-n", namespace, "serviceaccount", "ci"], "").await?;
        let binding = ["create", "clusterrolebinding", namespace, "--clusterrole=cluster-admin"];
        let account = format!("--serviceaccount={namespace}:ci");
        let args: Vec<&str> = binding.iter().copied().chain([&*account]).collect();
        world.plane.kubectl(&args, "").await?;
        let file = world.plane.service_account_kubeconfig(namespace, "ci").await?;
        let config = kube::config::Kubeconfig::read_from(file)?;
        let config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let front = app(&json!({"tier": "front"}), &json!({}));
        let answer = dry_pod(&client, &world.shop, &front).await?;
        ensure!(answer.code == code, "{namespace}: {answer:?}");
    }
    Ok(())
}

async fn counted(world: &World) -> Result<()> {
    poll::until("the status is written", DEADLINE, async || {
        let cured = world.status("cured").await?;
        let counts = cured.counts;
        ensure!((counts.matched, counts.changed, counts.failed) == (1, 1, 1), "{counts:?}");
        ensure!(cured.rules.as_deref() == Some("cpu=Default(50m)"), "{:?}", cured.rules);
        let failed = condition(&cured, "ConditionsEvaluated");
        ensure!(failed.starts_with("False") && failed.contains("condition \"tier\""), "{failed}");
        let offender = cured.last_offenders.first().context("no offender")?;
        let name = format!("{}/Pod/back", world.shop);
        ensure!((&*offender.name, &*offender.missing) == (&*name, "app: cpu"), "{offender:?}");

        let refused = world.status("refused").await?;
        let counts = refused.counts;
        ensure!((counts.matched, counts.denied, counts.warned) == (2, 1, 2), "{counts:?}");
        let rules = "memory=Deny cpu=Warn(Deny from 2999-01-01)";
        ensure!(refused.rules.as_deref() == Some(rules), "{:?}", refused.rules);
        ensure!(refused.last_offenders.len() == 2, "{refused:?}");
        ensure!(condition(&refused, "Ready").starts_with("True"), "{refused:?}");

        for (name, part) in [
            ("broken", "spec.matchConditions[0].expression: uses \"pod\""),
            ("dear", "steps for lists of 32 elements"),
        ] {
            let status = world.status(name).await?;
            let told = condition(&status, "ValidationSucceeded");
            ensure!(told.starts_with("False") && told.contains(part), "{told}");
            ensure!(condition(&status, "Ready").starts_with("False"), "{status:?}");
        }
        Ok(())
    })
    .await
    .with_context(|| world.webhook.log_tail(20))
}

/// The same webhook with a cap refuses nothing, changes nothing, and says so.
async fn capped(world: &mut World) -> Result<()> {
    world.webhook.kill()?;
    let mut recipe = world.chart.recipe(&world.plane, "webhook", Vec::new())?;
    for arg in &mut recipe.args {
        if arg.starts_with("--max-action=") {
            ensure!(*arg == "--max-action=deny", "{arg}");
            "--max-action=warn".clone_into(arg);
        }
    }
    world.webhook = Process::spawn(recipe)?;
    poll::until("the cap holds", DEADLINE, async || {
        let front = app(&json!({"tier": "front"}), &json!({}));
        let answer = dry_pod(&world.client, &world.shop, &front).await?;
        ensure!(answer.code == 201 && answer.warnings.len() == 2, "{answer:?}");
        Ok(())
    })
    .await?;
    let path = format!("/api/v1/namespaces/{}/pods/back", world.shop);
    submit(&world.client, Method::DELETE, &path, &json!({})).await?;
    let mut back = app(&json!({"tier": "back"}), &json!({}));
    back["spec"]["containers"][0]["image"] = "registry.example.com/app:1".into();
    back["spec"]["priorityClassName"] = "batch".into();
    let answer = dry_pod(&world.client, &world.shop, &back).await?;
    ensure!(answer.request("containers", 0, "cpu").is_none(), "{answer:?}");
    poll::until("the status tells the cap", DEADLINE, async || {
        let rules = world.status("refused").await?.rules;
        let wanted = "memory=Warn(Deny capped) cpu=Warn(Deny capped)";
        ensure!(rules.as_deref() == Some(wanted), "{rules:?}");
        Ok(())
    })
    .await
}
