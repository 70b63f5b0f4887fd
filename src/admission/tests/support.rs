//! A server on free ports, a client that trusts it, and reviews to send.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::http::{Method, Request, StatusCode};
use arc_swap::ArcSwap;
use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::*;
use crate::certs::{self, Certificates};
use crate::intent;
use crate::policy::{Action, ContainerKind, Policy, Resource, Rule, Snapshot};

/// Time within which anything in a test must happen.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Name that the API server verifies.
pub(super) const NAME: &str = "harbinger.ns.svc";

/// The real time: the client's TLS library judges certificates by it.
#[expect(clippy::disallowed_methods, reason = "tests of real TLS need the time of day")]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

pub(super) fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

/// Memory is set to 256Mi, cpu is denied.
pub(super) fn policies() -> PolicySource {
    let rule = |resource, action, amount| Rule {
        resource,
        action,
        amount: Some(amount),
        learned: None,
        enforce_from: None,
    };
    let policy = Policy {
        name: "prod".into(),
        container_kinds: vec![ContainerKind::Main, ContainerKind::Sidecar],
        rules: vec![
            rule(Resource::Cpu, Action::Deny, 100),
            rule(Resource::Memory, Action::Default, 256 << 20),
        ],
        zero_means_missing: true,
        ..Policy::default()
    };
    let exempt = BTreeSet::from(["kube-system".to_owned()]);
    Arc::new(ArcSwap::from_pointee(Snapshot::new("v1", vec![policy], Arc::default(), exempt)))
}

pub(super) fn issue(now: Timestamp) -> Certificates {
    certs::issue(&certs::Request::new("harbinger", "ns", now)).unwrap()
}

pub(super) fn fixed(made: &Certificates) -> CertificateSource {
    CertificateSource::Shared(Arc::new(ArcSwap::from_pointee(PemPair {
        certificate: made.certificate.clone(),
        key: made.key.clone(),
    })))
}

/// A running server.
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) health: SocketAddr,
    pub(super) cancel: CancellationToken,
    pub(super) metrics: Arc<Metrics>,
    pub(super) synced: Arc<AtomicBool>,
    tasks: TaskTracker,
}

impl Running {
    pub(super) async fn stop(self) {
        self.cancel.cancel();
        self.ended().await;
    }

    pub(super) async fn ended(self) {
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait()).await.expect("the server ends");
    }
}

pub(super) fn settings(certificate: CertificateSource) -> Settings {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings {
        drain_delay: Duration::ZERO,
        // Tests share two cores with builds.
        deadline: Duration::from_secs(20),
        late_after: Duration::from_secs(20),
        ..Settings::new(any, any, certificate)
    }
}

pub(super) fn context(clock: Clock, intents: Option<intent::Sender>) -> Context {
    let metrics = Arc::new(Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let render = move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    Context {
        policies: policies(),
        facts: FactsSource::default(),
        synced: Arc::new(AtomicBool::new(true)),
        intents,
        tally: Arc::default(),
        metrics,
        render: Arc::new(render),
        clock,
    }
}

pub(super) async fn start(settings: Settings, context: Context) -> Running {
    let (metrics, synced) = (Arc::clone(&context.metrics), Arc::clone(&context.synced));
    let server = Server::bind(settings, context).await.unwrap();
    let (addr, health) = (server.addr(), server.health_addr());
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(server.run(cancel.clone()));
    Running { addr, health, cancel, metrics, synced, tasks }
}

/// A server with a fixed certificate, and that certificate.
pub(super) async fn usual() -> (Running, Certificates) {
    let made = issue(now());
    let running = start(settings(fixed(&made)), context(Arc::new(now), None)).await;
    (running, made)
}

pub(super) fn connector(
    ca: &str,
    alpn: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// One connection, HTTP/1.1 or 2.
pub(super) enum Client {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) closes: bool,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(super) async fn connect(addr: SocketAddr, ca: &str, h2: bool) -> Self {
        Self::try_connect(addr, ca, h2).await.unwrap()
    }

    pub(super) async fn try_connect(
        addr: SocketAddr,
        ca: &str,
        h2: bool,
    ) -> Result<Self, std::io::Error> {
        let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
        let connector = connector(ca, &[alpn], rustls::ALL_VERSIONS);
        let tcp = TcpStream::connect(addr).await?;
        let stream = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let io = TokioIo::new(stream);
        let tasks = TaskTracker::new();
        if h2 {
            let (client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tasks.spawn(connection);
            Ok(Self::Two(client))
        } else {
            let (client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tasks.spawn(connection);
            Ok(Self::One(client))
        }
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Reply> {
        let response = match self {
            Self::One(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
            Self::Two(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
        };
        let status = response.status();
        let closes = response.headers().get("connection").is_some_and(|value| value == "close");
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Reply { status, closes, body })
    }

    pub(super) async fn post(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Reply> {
        self.send(request(Method::POST, path, "application/json", body)).await
    }
}

pub(super) fn request(
    method: Method,
    path: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("https://{NAME}{path}"))
        .header("host", NAME)
        .header("content-type", content_type)
        .body(Full::new(body.into()))
        .unwrap()
}

/// A GET on the plain port.
pub(super) async fn get(addr: SocketAddr, path: &str) -> Reply {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    TaskTracker::new().spawn(connection);
    let request = Request::get(path).header("host", "h").body(Full::<Bytes>::default()).unwrap();
    let response = client.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Reply { status, closes: false, body }
}

/// A review of the creation of a Pod.
pub(super) fn pod_review(pod: &Value) -> Value {
    review("", "Pod", "pods", "CREATE", pod)
}

pub(super) fn review(
    group: &str,
    kind: &str,
    resource: &str,
    operation: &str,
    object: &Value,
) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": group, "version": "v1", "kind": kind },
            "resource": { "group": group, "version": "v1", "resource": resource },
            "name": "web",
            "namespace": "shop",
            "operation": operation,
            "userInfo": { "username": "admin" },
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": { "kind": "CreateOptions" },
        },
    })
}

/// A pod that asks for cpu and not for memory.
pub(super) fn half_pod() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
    })
}

/// The patch of an answer.
pub(super) fn patch_of(answer: &Value) -> json_patch::Patch {
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let text = answer["response"]["patch"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Writes the pair as a mounted Secret has it: files that are links into `..data`, itself a link to
/// a folder of this version, moved into place in one step.
pub(super) fn mount(folder: &Path, version: u32, made: &Certificates) {
    use std::os::unix::fs::symlink;
    let data = folder.join(format!("..version_{version}"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("tls.crt"), &made.certificate).unwrap();
    std::fs::write(data.join("tls.key"), &made.key).unwrap();
    let next = folder.join("..data_tmp");
    symlink(&data, &next).unwrap();
    std::fs::rename(&next, folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        let link = folder.join(name);
        if !link.exists() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    if version > 0 {
        std::fs::remove_dir_all(folder.join(format!("..version_{}", version - 1))).unwrap();
    }
}

/// The review as the API server writes it, with the uid first.
pub(super) fn wire(review: &Value) -> String {
    let mut request = review["request"].clone();
    let uid = request.as_object_mut().unwrap().remove("uid").unwrap();
    let rest = request.to_string();
    format!(
        r#"{{"kind":{},"apiVersion":{},"request":{{"uid":{uid},{}}}"#,
        review["kind"],
        review["apiVersion"],
        &rest[1..],
    )
}
