use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn intent(name: &str) -> Intent {
    Intent {
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: name.into(),
        uid: "u-1".into(),
        owner: None,
        generation: Some(3),
        desired: 10,
        template: serde_json::from_str(
            r#"{"metadata":{"labels":{"app":"web"}},
                "spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"250m"}}}],
                        "tolerations":[{"key":"gpu","operator":"Exists"}]}}"#,
        )
        .unwrap(),
        operation: Operation::Create,
        seen_at: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

#[test]
fn the_wire_form_keeps_the_shape() {
    let sent = intent("web");
    let read: Intent = serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap();
    assert_eq!(read.desired, 10);
    assert_eq!(read.operation, Operation::Create);
    let (a, b) = (read.template.unwrap(), sent.template.unwrap());
    let status = crate::model::wire::pod::PodStatusWire::default();
    let shape = |t: &TemplateWire| crate::model::wire::pod::shape(&t.metadata, &t.spec, &status);
    assert_eq!(shape(&a), shape(&b));
}

#[tokio::test]
async fn intents_survive_a_restart_of_the_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intent.sock");
    let tasks = TaskTracker::new();
    let all = CancellationToken::new();
    let (sender, forwarder) = channel(&path);
    tasks.spawn(forwarder.run(all.clone()));

    // Sent before anybody listens.
    assert!(sender.send(intent("early")));
    let first = CancellationToken::new();
    let (listener, mut intents) = listen(&path, 0o600).await.unwrap();
    let running = tasks.spawn(listener.run(first.clone()));
    let got = tokio::time::timeout(DEADLINE, intents.recv()).await.unwrap().unwrap();
    assert_eq!(got.name, "early");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    first.cancel();
    running.await.unwrap();
    assert!(!path.exists(), "the socket file is removed");
    assert!(sender.send(intent("between")));

    let (listener, mut intents) = listen(&path, 0o660).await.unwrap();
    tasks.spawn(listener.run(all.clone()));
    let got = tokio::time::timeout(DEADLINE, intents.recv()).await.unwrap().unwrap();
    assert_eq!(got.name, "between");

    all.cancel();
    tasks.close();
    tokio::time::timeout(DEADLINE, tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_instead_of_waiting() {
    let (sender, _forwarder) = channel("/nonexistent/intent.sock");
    let queued = (0..2000).filter(|_| sender.send(intent("x"))).count();
    assert_eq!(queued, 1024);
    assert_eq!(sender.dropped(), 976);
}

#[tokio::test]
async fn a_frame_of_another_version_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intent.sock");
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (listener, mut intents) = listen(&path, 0o600).await.unwrap();
    tasks.spawn(listener.run(cancel.clone()));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    for body in [b"{\"v\":9}".to_vec(), serde_json::to_vec(&intent("good")).unwrap()] {
        stream.write_u32(u32::try_from(body.len()).unwrap()).await.unwrap();
        stream.write_all(&body).await.unwrap();
    }
    let got = tokio::time::timeout(DEADLINE, intents.recv()).await.unwrap().unwrap();
    assert_eq!(got.name, "good");
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead process leaves its file");
    let (live, _intents) = listen(&path, 0o600).await.unwrap();
    assert!(matches!(listen(&path, 0o600).await, Err(ListenError::InUse { .. })));
    drop(live);
    std::fs::write(&path, "data").unwrap();
    assert!(matches!(listen(&path, 0o600).await, Err(ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

fn question() -> crate::advice::Question {
    crate::advice::Question {
        kind: crate::model::workload::WorkloadKind::Deployment,
        namespace: "shop".into(),
        desired: 7,
        template: intent("web").template.unwrap(),
        before: None,
    }
}

#[tokio::test]
async fn questions_are_answered_over_the_socket_and_within_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intent.sock");
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let (listener, inbox) = listen(&path, 0o600).await.unwrap();
    tasks.spawn(listener.run(cancel.clone()));
    let (far, _forwarder) = channel(&path);
    let (near, within) = local();
    for (sender, mut inbox) in [(far, inbox), (near, within)] {
        let answering = async {
            for nodes in 1..3 {
                let asked = inbox.questions.recv().await.unwrap();
                assert_eq!(asked.question.shape().requests.cpu, 250);
                let quote = crate::advice::Quote { nodes, ..Default::default() };
                asked.reply.send(quote).unwrap();
            }
            // Taken and dropped: who asks is not left waiting.
            drop(inbox.questions.recv().await.unwrap());
        };
        let asking = async {
            for nodes in 1..3 {
                assert_eq!(sender.ask(&question()).await.unwrap().nodes, nodes);
            }
            assert_eq!(sender.ask(&question()).await, None);
        };
        let both = async { tokio::join!(asking, answering) };
        tokio::time::timeout(DEADLINE, both).await.unwrap();
    }
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    assert_eq!(channel(&path).0.ask(&question()).await, None, "nobody listens any more");
}

#[tokio::test]
async fn a_full_queue_of_questions_refuses_at_once() {
    let (sender, _inbox) = local();
    let question = question();
    let mut waiting: Vec<_> = (0..16).map(|_| Box::pin(sender.ask(&question))).collect();
    for asking in &mut waiting {
        assert!(futures::poll!(asking).is_pending());
    }
    assert_eq!(futures::poll!(Box::pin(sender.ask(&question))), std::task::Poll::Ready(None));
}
