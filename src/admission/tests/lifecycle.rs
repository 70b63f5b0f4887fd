//! Certificates that change, connections that age, and shutdown, all under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ::http::StatusCode;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::support::*;
use crate::admission::*;
use crate::certs;

/// Waits until `check` holds.
async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !check().await {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The serving certificate that a new connection gets.
async fn served(addr: std::net::SocketAddr, ca: &str) -> Vec<u8> {
    let connector = connector(ca, &[b"http/1.1"], rustls::ALL_VERSIONS);
    let tcp = TcpStream::connect(addr).await.unwrap();
    let stream = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn certificates_rotate_under_load_without_a_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let request = certs::Request::new("harbinger", "ns", now());
    let first = certs::issue(&request).unwrap();
    mount(folder.path(), 0, &first);
    let mut settings = settings(CertificateSource::Files {
        certificate: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
    });
    settings.certificate_poll = Duration::from_millis(10);
    let server = start(settings, context(Arc::new(now), None)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU32::new(0));
    let load = TaskTracker::new();
    for kept in [true, false] {
        let (stop, sent, ca) = (Arc::clone(&stop), Arc::clone(&sent), first.ca.clone());
        let addr = server.addr;
        load.spawn(async move {
            let body = pod_review(&half_pod()).to_string();
            let mut client = Client::connect(addr, &ca, false).await;
            while !stop.load(Ordering::Relaxed) {
                if !kept {
                    client = Client::connect(addr, &ca, false).await;
                }
                let reply = client.post("/mutate/pods", body.clone()).await.unwrap();
                assert_eq!(reply.status, StatusCode::OK);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Three in a row: a watch on the file would go deaf after the first.
    for version in 1..=3 {
        let before = served(server.addr, &first.ca).await;
        let next = certs::renew(&request, &first.ca, &first.ca_key).unwrap();
        mount(folder.path(), version, &next);
        until("the new certificate is served", || async {
            served(server.addr, &first.ca).await != before
        })
        .await;
        let so_far = sent.load(Ordering::Relaxed);
        until("load goes on", || async { sent.load(Ordering::Relaxed) > so_far + 5 }).await;
    }
    let loads = server.metrics.certificate_loads.get_or_create(&vec![("result", "loaded")]).get();
    assert_eq!(loads, 3);

    // A key that does not match is refused; the old pair stays in use.
    let before = served(server.addr, &first.ca).await;
    let mut broken = certs::renew(&request, &first.ca, &first.ca_key).unwrap();
    broken.key = first.key.clone();
    mount(folder.path(), 4, &broken);
    let refused =
        || server.metrics.certificate_loads.get_or_create(&vec![("result", "refused")]).get();
    until("the pair is refused", || async { refused() == 1 }).await;
    assert_eq!(served(server.addr, &first.ca).await, before);
    assert!(server.metrics.certificate_expires_in.get() > 0);

    stop.store(true, Ordering::Relaxed);
    load.close();
    tokio::time::timeout(DEADLINE, load.wait()).await.unwrap();
    assert!(sent.load(Ordering::Relaxed) > 20);
    server.stop().await;
}

#[tokio::test]
async fn draining_answers_everything_and_tells_clients_to_go() {
    let made = issue(now());
    let mut settings = settings(fixed(&made));
    settings.drain_delay = Duration::from_millis(500);
    let server = start(settings, context(Arc::new(now), None)).await;
    assert_eq!(get(server.health, "/readyz").await.status, StatusCode::OK);
    let body = pod_review(&half_pod()).to_string();
    let mut kept = Client::connect(server.addr, &made.ca, false).await;
    assert!(!kept.post("/mutate/pods", body.clone()).await.unwrap().closes);

    server.cancel.cancel();
    until("the server is not ready", || async {
        get(server.health, "/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(get(server.health, "/healthz").await.status, StatusCode::OK);
    // Both an old and a new connection are served once more and told to close.
    assert!(kept.post("/mutate/pods", body.clone()).await.unwrap().closes);
    let mut fresh = Client::connect(server.addr, &made.ca, false).await;
    let reply = fresh.post("/mutate/pods", body).await.unwrap();
    assert!(reply.closes && reply.status == StatusCode::OK);
    let addr = server.addr;
    // An idle connection does not keep the server.
    let _idle = Client::connect(addr, &made.ca, true).await;
    server.ended().await;
    assert!(TcpStream::connect(addr).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn an_old_connection_closes_with_an_answer() {
    let made = issue(now());
    let mut settings = settings(fixed(&made));
    settings.max_connection_age = Duration::from_millis(50);
    let server = start(settings, context(Arc::new(now), None)).await;
    let body = pod_review(&half_pod()).to_string();
    let mut client = Client::connect(server.addr, &made.ca, false).await;
    let end = tokio::time::Instant::now() + DEADLINE;
    while !client.post("/mutate/pods", body.clone()).await.unwrap().closes {
        assert!(tokio::time::Instant::now() < end, "the connection never closes");
    }
    server.stop().await;
}

#[tokio::test]
async fn readiness_waits_for_policies_and_a_living_certificate() {
    let born: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let made = issue(born);
    let late = Arc::new(AtomicBool::new(false));
    let clock: Clock = {
        let late = Arc::clone(&late);
        Arc::new(move || {
            let years = if late.load(Ordering::Relaxed) { 2 } else { 0 };
            born + jiff::SignedDuration::from_hours(years * 365 * 24)
        })
    };
    let server = start(settings(fixed(&made)), context(clock, None)).await;
    server.synced.store(false, Ordering::Relaxed);
    let reply = get(server.health, "/readyz").await;
    assert_eq!(reply.text(), "not ready: policies are not synced yet\n");
    server.synced.store(true, Ordering::Relaxed);
    assert_eq!(get(server.health, "/readyz").await.status, StatusCode::OK);
    late.store(true, Ordering::Relaxed);
    let reply = get(server.health, "/readyz").await;
    assert_eq!(reply.text(), "not ready: the serving certificate has ended\n");
    server.stop().await;
}

#[tokio::test]
async fn a_missing_certificate_is_an_error_at_the_start() {
    let source = CertificateSource::Files { certificate: "/nonexistent".into(), key: "/k".into() };
    let result = Server::bind(settings(source), context(Arc::new(now), None)).await.err();
    let error = result.expect("there is nothing to serve");
    assert!(matches!(error, BindError::Certificate(CertificateError::Read { .. })));
}
