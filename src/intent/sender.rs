//! The admission side: a queue that never blocks, and the task that empties it into the socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::SinkExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use super::question::{self, Way};
use super::{FRAME_LIMIT, Inbox, Intent, codec};
use crate::advice::{Question, Quote};

/// Intents that may wait. The API server handles at most 200 mutating requests at a time
/// (`--max-mutating-requests-inflight`), so 1024 is five full rounds of them; at a typical 4 KiB
/// each this is 4 MiB.
const QUEUE: usize = 1024;

/// First pause before connecting again; doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause before connecting again.
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// How long one write may take before the connection counts as dead.
const WRITE_DEADLINE: Duration = Duration::from_secs(1);

/// Hands intents over without waiting.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Intent>,
    questions: Way,
    dropped: Arc<AtomicU64>,
}

impl Sender {
    /// Queues the intent, or drops it when the queue is full. Tells whether it was queued.
    pub fn send(&self, intent: Intent) -> bool {
        let queued = self.queue.try_send(intent).is_ok();
        if !queued {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        queued
    }

    /// Asks what pods would cost. There may be no answer, and there is no limit on how long one takes:
    /// the caller has one.
    pub async fn ask(&self, question: &Question) -> Option<Quote> {
        self.questions.ask(question).await
    }

    /// Intents dropped so far: for want of room, or too large for a frame.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Carries queued intents to the socket.
#[derive(Debug)]
pub struct Forwarder {
    path: PathBuf,
    queue: mpsc::Receiver<Intent>,
    dropped: Arc<AtomicU64>,
}

/// A queue whose far end is the socket at `path`. Run the [`Forwarder`] as a task.
pub fn channel(path: impl Into<PathBuf>) -> (Sender, Forwarder) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let path = path.into();
    let forwarder = Forwarder { path: path.clone(), queue, dropped: Arc::clone(&dropped) };
    (Sender { queue: sender, questions: Way::Socket(path), dropped }, forwarder)
}

/// A queue within one process, for a webhook and a provisioner that share it.
pub fn local() -> (Sender, Inbox) {
    let (sender, intents) = mpsc::channel(QUEUE);
    let (asking, questions) = mpsc::channel(question::QUEUE);
    let sender = Sender { queue: sender, questions: Way::Local(asking), dropped: Arc::default() };
    (sender, Inbox { intents, questions })
}

impl Forwarder {
    /// Forwards until cancelled or until all senders are gone. Connects when there is something to
    /// send, and again when the receiver went away; the intent at hand is sent once more then.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut connection = None;
        loop {
            let intent = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                intent = self.queue.recv() => match intent {
                    Some(intent) => intent,
                    None => return,
                },
            };
            let frame = match serde_json::to_vec(&intent) {
                Ok(frame) if frame.len() <= FRAME_LIMIT => bytes::Bytes::from(frame),
                result => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    let bytes = result.map(|frame| frame.len()).ok();
                    tracing::warn!(kind = intent.kind, name = intent.name, bytes, "intent dropped");
                    continue;
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = deliver(&self.path, &mut connection, frame) => {}
            }
        }
    }
}

/// Writes the frame, on a new connection where the old one is broken. Ends when it is written.
async fn deliver(
    path: &std::path::Path,
    connection: &mut Option<Framed<UnixStream, LengthDelimitedCodec>>,
    frame: bytes::Bytes,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        if connection.is_none() {
            match UnixStream::connect(path).await {
                Ok(stream) => *connection = Some(Framed::new(stream, codec())),
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "provisioner is not listening");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                    continue;
                }
            }
        }
        let Some(open) = connection.as_mut() else { continue };
        match tokio::time::timeout(WRITE_DEADLINE, open.send(frame.clone())).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::debug!(%error, "connection to the provisioner broke"),
            Err(_) => tracing::warn!("provisioner does not read intents, connecting again"),
        }
        *connection = None;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
