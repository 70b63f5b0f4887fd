//! The wire contract over real TLS, HTTP/1.1 and HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, StatusCode};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use http_body_util::BodyExt;
use tower::ServiceExt;

use super::support::*;
use crate::admission::pressure::Pressure;
use crate::admission::router::router;
use crate::admission::*;

#[tokio::test]
async fn both_protocols_and_the_added_query_work() {
    let (server, made) = usual().await;
    for h2 in [false, true] {
        let mut client = Client::connect(server.addr, &made.ca, h2).await;
        for endpoint in [Endpoint::Mutate, Endpoint::Validate] {
            let path = format!("{}?timeout=2s", endpoint.path());
            let reply = client.post(&path, pod_review(&half_pod()).to_string()).await.unwrap();
            assert_eq!(reply.status, StatusCode::OK);
            let body = reply.json();
            assert_eq!(body["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
            assert_eq!(body["response"]["allowed"], true);
            assert_eq!(body["response"].get("patch").is_some(), endpoint == Endpoint::Mutate);
        }
        let deployment = json!({ "spec": { "template": { "spec": { "containers": [] } } } });
        let review = review("apps", "Deployment", "deployments", "CREATE", &deployment);
        let reply = client.post("/advise/workloads", review.to_string()).await.unwrap();
        assert_eq!(reply.json()["response"]["allowed"], true);
    }
    server.stop().await;
}

#[tokio::test]
async fn bad_requests_get_the_right_status_and_a_clear_message() {
    let (server, made) = usual().await;
    let good = pod_review(&half_pod());
    let mut beta = good.clone();
    beta["apiVersion"] = "admission.k8s.io/v1beta1".into();
    let mut other = good.clone();
    other["kind"] = "TokenReview".into();
    let mut no_uid = good.clone();
    no_uid["request"]["uid"] = "".into();
    let mut no_request = good.clone();
    no_request.as_object_mut().unwrap().remove("request");
    let json = "application/json";
    let cases: Vec<(Method, &str, &str, String, u16, &str)> = vec![
        (Method::POST, "/mutate/pods", json, String::new(), 400, "not an AdmissionReview"),
        (Method::POST, "/mutate/pods", json, "{\"kind\":".into(), 400, "not an AdmissionReview"),
        (Method::POST, "/mutate/pods", json, "[]".into(), 400, "is not supported"),
        (Method::POST, "/mutate/pods", json, beta.to_string(), 400, "admission.k8s.io/v1beta1"),
        (Method::POST, "/mutate/pods", json, other.to_string(), 400, "TokenReview"),
        (Method::POST, "/mutate/pods", json, no_uid.to_string(), 400, "request.uid"),
        (Method::POST, "/mutate/pods", json, no_request.to_string(), 400, "no request"),
        (Method::POST, "/mutate/pods", "text/plain", good.to_string(), 415, "application/json"),
        (Method::POST, "/mutate", json, good.to_string(), 404, ""),
        (Method::GET, "/mutate/pods", json, String::new(), 405, ""),
        (Method::PUT, "/validate/pods", json, good.to_string(), 405, ""),
        (
            Method::POST,
            "/mutate/pods",
            "application/json; charset=utf-8",
            good.to_string(),
            200,
            "",
        ),
    ];
    for h2 in [false, true] {
        let mut client = Client::connect(server.addr, &made.ca, h2).await;
        for (method, path, content_type, body, status, message) in &cases {
            let request = request(method.clone(), path, content_type, body.clone());
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.status.as_u16(), *status, "{method} {path} {body}");
            assert!(reply.text().contains(message), "{} lacks {message}", reply.text());
        }
    }
    server.stop().await;
}

/// A review of the given size: a pod with one long annotation.
fn sized(bytes: usize) -> String {
    let mut pod = half_pod();
    pod["metadata"]["annotations"] = json!({ "a": "" });
    let room = bytes - pod_review(&pod).to_string().len();
    pod["metadata"]["annotations"]["a"] = "x".repeat(room).into();
    let text = pod_review(&pod).to_string();
    assert_eq!(text.len(), bytes);
    text
}

#[tokio::test]
async fn large_bodies_are_judged_and_larger_ones_refused() {
    let (server, made) = usual().await;
    for h2 in [false, true] {
        for (bytes, status) in [
            // Two objects of the API server's limit.
            (6 * (1 << 20) + (1 << 19), 200),
            (BODY_LIMIT, 200),
            (BODY_LIMIT + 1, 413),
            (9 << 20, 413),
        ] {
            let mut client = Client::connect(server.addr, &made.ca, h2).await;
            let reply = client.post("/mutate/pods", sized(bytes)).await.unwrap();
            assert_eq!(reply.status.as_u16(), status, "{bytes} bytes: {}", reply.text());
            if status == 200 {
                assert!(reply.json()["response"].get("patch").is_some());
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_panic_becomes_an_answer_and_the_server_lives_on() {
    let made = issue(now());
    let panics = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clock: Clock = {
        let panics = Arc::clone(&panics);
        Arc::new(move || {
            assert!(!panics.load(std::sync::atomic::Ordering::Relaxed), "a defect in a decision");
            now()
        })
    };
    let server = start(settings(fixed(&made)), context(clock, None)).await;
    let mut client = Client::connect(server.addr, &made.ca, false).await;
    let body = pod_review(&half_pod()).to_string();
    for large in [false, true] {
        let body = if large { sized(1 << 20) } else { body.clone() };
        panics.store(true, std::sync::atomic::Ordering::Relaxed);
        let reply = client.post("/validate/pods", body.clone()).await.unwrap();
        let answer = reply.json();
        assert_eq!(answer["response"]["allowed"], true);
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains("internal error"), "{warning}");
        panics.store(false, std::sync::atomic::Ordering::Relaxed);
        let reply = client.post("/mutate/pods", body).await.unwrap();
        assert!(reply.json()["response"].get("patch").is_some());
    }
    let metrics = get(server.health, "/metrics").await;
    let line = "harbinger_admission_reviews_total{endpoint=\"validate\",outcome=\"panicked\",\
                dry_run=\"false\"} 2";
    assert!(metrics.text().contains(line), "{}", metrics.text());
    server.stop().await;
}

#[tokio::test]
async fn without_memory_or_time_the_answer_is_allowed_with_a_warning() {
    let made = issue(now());
    let mut settings = settings(fixed(&made));
    settings.body_budget = BODY_LIMIT;
    settings.shed_after = Duration::from_millis(1);
    settings.deadline = Duration::from_secs(2);
    let server = start(settings, context(Arc::new(now), None)).await;
    // One client announces a body of the whole budget and sends only its beginning.
    let connector = connector(&made.ca, &[b"http/1.1"], rustls::ALL_VERSIONS);
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let mut slow = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await.unwrap();
    let head = format!(
        "POST /mutate/pods HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\n\
         content-length: {BODY_LIMIT}\r\n\r\n"
    );
    let body = wire(&pod_review(&half_pod()));
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&body.as_bytes()[..400]).await.unwrap();
    slow.flush().await.unwrap();
    // Until its head has arrived others are still judged.
    let mut client = Client::connect(server.addr, &made.ca, false).await;
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        let answer = client.post("/mutate/pods", body.clone()).await.unwrap().json();
        assert_eq!(answer["response"]["allowed"], true);
        if answer["response"].get("patch").is_none() {
            let warning = answer["response"]["warnings"][0].as_str().unwrap();
            assert!(warning.contains("overloaded"), "{warning}");
            break;
        }
        assert!(tokio::time::Instant::now() < end, "nothing was shed");
    }
    // The slow client is answered at the deadline, with the uid from what it sent.
    let mut text = Vec::new();
    let mut byte = [0_u8; 4096];
    while !String::from_utf8_lossy(&text).contains("ran out of time") {
        let count =
            tokio::time::timeout(DEADLINE, tokio::io::AsyncReadExt::read(&mut slow, &mut byte))
                .await
                .unwrap()
                .unwrap();
        assert!(count > 0, "closed after {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&byte[..count]);
    }
    assert!(String::from_utf8_lossy(&text).contains("705ab4f5-6393-11e8-b7cc-42010a800002"));
    // Then the budget is free again.
    let answer: Value = client.post("/mutate/pods", body).await.unwrap().json();
    assert!(answer["response"].get("patch").is_some());
    server.stop().await;
}

#[tokio::test]
async fn what_comes_late_is_allowed_with_a_warning() {
    let context = context(Arc::new(now), None);
    let reviewer = Reviewer::new(
        Arc::clone(&context.policies),
        None,
        Arc::default(),
        Arc::clone(&context.metrics),
        Arc::new(now),
        false,
    );
    let pressure = Arc::new(Pressure::new(Duration::from_millis(250)));
    let settings = settings(fixed(&issue(now())));
    let router = router(Arc::new(reviewer), &settings, Arc::clone(&pressure));
    let ask = async || {
        let body = wire(&pod_review(&half_pod()));
        let request = request(Method::POST, "/mutate/pods", "application/json", body);
        let reply = router.clone().oneshot(request.map(axum::body::Body::new)).await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    pressure.note(Duration::from_millis(250));
    assert!(ask().await["response"].get("patch").is_some());
    pressure.note(Duration::from_millis(251));
    let late = ask().await;
    assert_eq!(late["response"]["allowed"], true);
    assert!(late["response"].get("patch").is_none());
    let warning = late["response"]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("overloaded"), "{warning}");
    pressure.note(Duration::ZERO);
    assert!(ask().await["response"].get("patch").is_some());
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once() {
    let made = issue(now());
    let settings = Settings { connections: 4, ..settings(fixed(&made)) };
    let server = start(settings, context(Arc::new(now), None)).await;
    let body = pod_review(&half_pod()).to_string();
    let mut kept = Vec::new();
    for count in 1..=4 {
        let mut client = Client::connect(server.addr, &made.ca, false).await;
        let reply = client.post("/mutate/pods", body.clone()).await.unwrap();
        // From more than half of them on, each answer makes room.
        assert_eq!(reply.closes, count > 2, "{count}");
        if count > 2 {
            // It is gone with its answer; the next one stays, and says nothing.
            client = Client::connect(server.addr, &made.ca, false).await;
        }
        kept.push(client);
    }
    let shed = || {
        let reason = vec![("reason", "connections")];
        server.metrics.connections_shed.get_or_create(&reason).get()
    };
    let end = tokio::time::Instant::now() + DEADLINE;
    // The kernel takes it, the server closes it before a handshake.
    while shed() == 0 {
        if let Ok(client) = Client::try_connect(server.addr, &made.ca, false).await {
            kept.push(client);
        }
        assert!(tokio::time::Instant::now() < end, "nothing was closed");
    }
    // Those that are there are served.
    assert_eq!(kept[0].post("/mutate/pods", body.clone()).await.unwrap().status, StatusCode::OK);
    drop(kept);
    while Client::try_connect(server.addr, &made.ca, false).await.is_err() {
        assert!(tokio::time::Instant::now() < end, "no room comes back");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_finds_no_room_is_given_up() {
    let made = issue(now());
    let settings = Settings { handshakes: 1, ..settings(fixed(&made)) };
    let server = start(settings, context(Arc::new(now), None)).await;
    // One that never says a word holds the only handshake.
    let silent = TcpStream::connect(server.addr).await.unwrap();
    let end = tokio::time::Instant::now() + DEADLINE;
    while Client::try_connect(server.addr, &made.ca, false).await.is_ok() {
        assert!(tokio::time::Instant::now() < end, "the bound holds nobody back");
    }
    let reason = vec![("reason", "handshakes")];
    assert!(server.metrics.connections_shed.get_or_create(&reason).get() >= 1);
    drop(silent);
    while Client::try_connect(server.addr, &made.ca, false).await.is_err() {
        assert!(tokio::time::Instant::now() < end, "the handshake is not given back");
    }
    server.stop().await;
}

#[tokio::test]
async fn tls_1_2_is_the_least() {
    let (server, made) = usual().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let connector = connector(&made.ca, &[], &[version]);
        let tcp = TcpStream::connect(server.addr).await.unwrap();
        let stream = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
    // A ClientHello of TLS 1.1 is answered with an alert.
    let hello: &[u8] = &[
        0x16, 0x03, 0x01, 0x00, 0x2f, 0x01, 0x00, 0x00, 0x2b, 0x03, 0x02, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0x00, 0x00, 0x04,
        0x00, 0x2f, 0x00, 0x35, 0x01, 0x00,
    ];
    let mut old = TcpStream::connect(server.addr).await.unwrap();
    old.write_all(hello).await.unwrap();
    let mut reply = [0_u8; 1];
    tokio::io::AsyncReadExt::read_exact(&mut old, &mut reply).await.unwrap();
    assert_eq!(reply[0], 21, "an alert record");
    // Another authority's client does not trust it, and plain HTTP is refused.
    let stranger = issue(now());
    assert!(Client::try_connect(server.addr, &stranger.ca, false).await.is_err());
    assert!(server.metrics.handshakes_failed.get() >= 1);
    server.stop().await;
}
