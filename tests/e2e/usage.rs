//! Learned requests on the real API server: use from `metrics.k8s.io` behind the aggregation layer,
//! profiles, and what the next pod asks for.
//!
//! The metrics come from a server of this test that answers from a table, in place of the
//! metrics-server and kubelets that would measure containers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use testbed::poll;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::submit::{Answer, dry_pod};
use super::world::{DEADLINE, World};

const POLICY: &str = "
apiVersion: harbinger.sh/v1alpha1
kind: RequestPolicy
metadata: {name: learned}
spec:
  rules:
  - {resource: cpu, action: Default, default: 50m, learned: {}}
  - {resource: memory, action: Default, default: 128Mi, learned: {underCost: 19}}
";

const MEBI: i64 = 1 << 20;

/// What running pods use by their label `app`: millicores and mebibytes.
type Table = BTreeMap<&'static str, (i64, i64)>;

/// A server of metrics behind the API server's aggregation layer.
struct Meter {
    address: SocketAddr,
    _ends: DropGuard,
}

impl Meter {
    async fn start(client: Client, table: Table) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let resources = json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "metrics.k8s.io/v1beta1", "resources": [
                {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics",
                 "verbs": ["get", "list"]}]});
        let group = "/apis/metrics.k8s.io/v1beta1";
        let router = Router::new()
            .route(group, get(async move || axum::Json(resources)))
            .route(&format!("{group}/pods"), get(metrics))
            .with_state((client, Arc::new(table)));
        let cancel = CancellationToken::new();
        let ends = cancel.clone().drop_guard();
        tokio::spawn(async move {
            while let Some(Ok((stream, _))) = cancel.run_until_cancelled(listener.accept()).await {
                let (acceptor, service) = (acceptor.clone(), router.clone());
                let cancel = cancel.clone();
                tokio::spawn(cancel.run_until_cancelled_owned(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(service);
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ended = server.serve_connection(TokioIo::new(stream), service).await;
                }));
            }
        });
        Ok(Self { address, _ends: ends })
    }

    /// The registration: a Service by name, since a plane without nodes has no other way.
    fn registration(&self) -> String {
        let port = self.address.port();
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: meter, namespace: default}}
spec: {{type: ExternalName, externalName: localhost, ports: [{{port: {port}}}]}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1beta1.metrics.k8s.io}}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {{name: meter, namespace: default, port: {port}}}
"
        )
    }
}

async fn metrics(State((client, table)): State<(Client, Arc<Table>)>) -> axum::Json<Value> {
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await;
    let items: Vec<Value> = pods
        .into_iter()
        .flat_map(|pods| pods.items)
        .filter(|pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"))
        .filter_map(|pod| {
            let (cpu, memory) = table.get(&**pod.labels().get("app")?)?;
            let usage = json!({"cpu": format!("{}n", cpu * 1_000_000), "memory": format!("{}Ki", memory * 1024)});
            Some(json!({
                "metadata": {"name": pod.name_any(), "namespace": pod.namespace()},
                "timestamp": "2026-01-01T00:00:00Z", "window": "15s",
                "containers": [{"name": "app", "usage": usage}],
            }))
        })
        .collect();
    axum::Json(json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {}, "items": items}))
}

/// What the next pod of a running one's workload would be.
async fn next(world: &World, namespace: &str, like: &Pod) -> Result<Answer> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "next", "labels": like.labels(), "ownerReferences": like.owner_references()},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]},
    });
    dry_pod(&world.plane.client(), namespace, &pod).await
}

fn mebibytes(answer: &Answer) -> Result<i64> {
    let request = answer.request("containers", 0, "memory").context("no request")?;
    let quantity: harbinger::model::quantity::Quantity = request.parse()?;
    Ok(quantity.units() / MEBI)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pod_asks_for_what_the_last_one_used() -> Result<()> {
    let flags = ["--usage-seconds=1", "--usage-checkpoint-seconds=1"];
    let mut world = World::start(std::time::Duration::from_secs(1), &flags).await?;
    world.apply(POLICY).await?;
    let shop = world.plane.namespace("shop").await?;
    // Nobody serves metrics yet: pods get the default, and the provisioner goes on.
    let metric = async |name: &str| world.chart.metric("metrics", name, &[]).await;
    poll::until("the absence of metrics is told", DEADLINE, async || {
        let up = metric("harbinger_usage_source_up").await?;
        let skipped = [r#"operation="read_usage""#, r#"outcome="skipped""#];
        let asked = world.chart.metric("metrics", "harbinger_operations_total", &skipped).await?;
        ensure!(up < 0.5 && asked >= 1.0, "up {up}, asked {asked}");
        Ok(())
    })
    .await
    .with_context(|| world.story())?;
    world.apply(&deployment(&shop)).await?;
    let pod = world.running(&shop, 1).await?.remove(0);
    let first = next(&world, &shop, &pod).await?;
    ensure!(mebibytes(&first)? == 128, "{first:?}");

    let meter = Meter::start(world.plane.client(), Table::from([("web", (300, 900))])).await?;
    world.apply(&meter.registration()).await?;
    let learned = async || {
        poll::until("the next pod asks for more", DEADLINE, async || {
            let answer = next(&world, &shop, &pod).await?;
            let asked = mebibytes(&answer)?;
            ensure!((900..1200).contains(&asked), "{asked} MiB: {:?}", answer.warnings);
            let told = answer.warnings.iter().any(|w| w.contains("of web's own history"));
            ensure!(told, "{:?}", answer.warnings);
            Ok(())
        })
        .await
        .with_context(|| format!("{}\n{}", world.story(), world.webhook.log_tail(10)))
    };
    learned().await?;
    ensure!(metric("harbinger_usage_source_up").await? > 0.5, "up");
    ensure!(metric("harbinger_usage_containers").await? >= 1.0, "containers");
    let profiles = world.plane.kubectl(&["get", "demandprofiles", "-n", &shop], "").await?;
    ensure!(profiles.contains("usage-0"), "{profiles}");

    // A real pod keeps the record.
    world.scale(&shop, "web", 2).await?;
    let pods = world.running(&shop, 2).await?;
    let record = |pod: &Pod| {
        pod.annotations().get("harbinger.sh/default-requests").cloned().unwrap_or_default()
    };
    let told = pods.iter().any(|pod| record(pod).contains("web's own history"));
    ensure!(told, "{:?}", pods.iter().map(record).collect::<Vec<_>>());

    // Metrics go, and both our processes start anew: what was learned is still there.
    world.plane.kubectl(&["delete", "apiservice", "v1beta1.metrics.k8s.io"], "").await?;
    drop(meter);
    for process in [&mut world.provisioner, &mut world.webhook] {
        process.kill()?;
        process.start_again()?;
    }
    let again = async || {
        let answer = next(&world, &shop, &pod).await?;
        ensure!(mebibytes(&answer)? >= 900, "{answer:?}");
        let containers = world.chart.metric("metrics", "harbinger_usage_containers", &[]).await?;
        ensure!(containers >= 1.0, "{containers} containers");
        Ok(())
    };
    poll::until("what was learned is read again", DEADLINE, again)
        .await
        .with_context(|| format!("{}\n{}", world.story(), world.webhook.log_tail(10)))
}

fn deployment(namespace: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": "web:1"}]},
            },
        },
    })
    .to_string()
}
