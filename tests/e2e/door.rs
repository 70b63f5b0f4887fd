//! A plane with the chart's registrations, our webhook and request policies of every kind.

use anyhow::{Context, Result, ensure};
use harbinger::intent::{self, Inbox, Intent};
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use testbed::install::Chart;
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;
use testbed::process::Process;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::submit::{Answer, dry_pod, submit};
use super::world::DEADLINE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_harbinger");

/// By label of the namespace, by label of the pod, by kind of the owner, by kind of the container.
const POLICIES: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: prod}
  spec:
    match: {namespaceSelector: {matchLabels: {env: prod}}}
    rules: [{resource: cpu, action: Deny}, {resource: memory, action: Deny}]
    message: 'see https://wiki.example.com/requests ({namespace})'
    allowOptOut: true
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: test}
  spec:
    match: {namespaceSelector: {matchLabels: {env: test}}}
    rules: [{resource: cpu, action: Warn}, {resource: memory, action: Warn}]
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: small}
  spec:
    priority: 10
    match: {objectSelector: {matchLabels: {size: small}}}
    rules:
    - {resource: cpu, action: Default, default: 50m}
    - {resource: memory, action: Default, default: 64Mi}
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: init}
  spec:
    priority: 10
    match: {objectSelector: {matchLabels: {size: small}}, containerNames: [unpack], containerKinds: [Init]}
    rules: [{resource: cpu, action: Default, default: 10m}]
- apiVersion: harbinger.sh/v1alpha1
  kind: RequestPolicy
  metadata: {name: jobs}
  spec:
    priority: 20
    match: {ownerKinds: [Job]}
    rules:
    - {resource: cpu, action: Default, default: 200m}
    - {resource: memory, action: Default, default: 256Mi}
";

/// A plane with the chart's registrations and the webhook; the provisioner's place is taken by us.
pub(crate) struct Door {
    pub intents: Inbox,
    pub webhook: Process,
    pub chart: Chart,
    pub client: Client,
    pub prod: String,
    pub test: String,
    pub plane: Plane,
    _listener: DropGuard,
}

impl Door {
    pub(crate) async fn open() -> Result<Self> {
        let plane = Plane::start(PlaneOptions::default()).await?;
        let chart =
            Chart::install(&plane, PROGRAM, &["certificates.mode=selfManaged"], &[]).await?;
        let (listener, intents) =
            intent::listen(&chart.folder("socket").join("intents.sock"), 0o600).await?;
        let cancel = CancellationToken::new();
        tokio::spawn(listener.run(cancel.clone()));
        let webhook = chart.run(&plane, "webhook", Vec::new()).await?;
        let (prod, test) = (plane.namespace("prod").await?, plane.namespace("test").await?);
        plane.kubectl(&["label", "namespace", &prod, "env=prod"], "").await?;
        plane.kubectl(&["label", "namespace", &test, "env=test"], "").await?;
        plane.kubectl(&["apply", "--validate=strict", "-f", "-"], POLICIES).await?;
        let client = plane.client();
        let door = Self {
            intents,
            webhook,
            chart,
            client,
            prod,
            test,
            plane,
            _listener: cancel.drop_guard(),
        };
        door.in_force().await.with_context(|| door.webhook.log_tail(20))?;
        Ok(door)
    }

    /// Waits until registrations, policies and namespaces have reached everybody.
    async fn in_force(&self) -> Result<()> {
        poll::until("policies in force", DEADLINE, async || {
            let refused = dry_pod(&self.client, &self.prod, &app(&json!({}), &json!({}))).await?;
            ensure!(refused.code == 422, "{refused:?}");
            let warned = dry_pod(&self.client, &self.test, &app(&json!({}), &json!({}))).await?;
            ensure!(warned.warnings.len() == 2, "{warned:?}");
            let labels = json!({"size": "small"});
            let set = dry_pod(&self.client, &self.prod, &app(&labels, &json!({}))).await?;
            ensure!(set.code == 201, "{set:?}");
            Ok(())
        })
        .await
    }

    pub(crate) async fn reviews(&self, labels: &[&str]) -> Result<f64> {
        self.chart.metric("webhook-metrics", "harbinger_admission_reviews_total", labels).await
    }

    pub(crate) async fn workload(
        &self,
        namespace: &str,
        object: &Value,
        query: &str,
    ) -> Result<Answer> {
        let resource = match object["kind"].as_str() {
            Some("Job") => "batch/v1/namespaces/NS/jobs",
            _ => "apps/v1/namespaces/NS/deployments",
        };
        let path = format!("/apis/{}{query}", resource.replace("NS", namespace));
        submit(&self.client, Method::POST, &path, object).await
    }

    pub(crate) async fn intent(&mut self) -> Result<Intent> {
        let next = tokio::time::timeout(DEADLINE, self.intents.recv()).await;
        next.context("no intent came")?.context("the listener ended")
    }
}

/// A pod of one container.
pub(crate) fn app(labels: &Value, resources: &Value) -> Value {
    let container = json!({"name": "app", "image": "app", "resources": resources});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "labels": labels},
        "spec": {"containers": [container]},
    })
}

pub(crate) fn deployment(name: &str, labels: &Value, resources: &Value) -> Value {
    let mut template = app(labels, resources);
    template["metadata"]["labels"]["app"] = name.into();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]},
        },
    })
}
