//! Questions about cost: asked by admission, answered by the provisioner.

use std::path::{Path, PathBuf};

use futures::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::Framed;

use super::codec;
use crate::advice::{Question, Quote};

/// Questions that may wait. Each takes some milliseconds of the solver, and who asks waits for a
/// tenth of a second: more would only be answered too late.
pub(super) const QUEUE: usize = 16;

/// First byte of a frame that is a question.
const MARK: u8 = b'?';

/// A question, and where its answer is waited for.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// Where the answer goes; closed when nobody waits any more.
    pub reply: oneshot::Sender<Quote>,
}

/// Where questions go.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// To a socket.
    Socket(PathBuf),
    /// To the provisioner of the same process.
    Local(mpsc::Sender<Asked>),
}

impl Way {
    /// Asks, and waits as long as the caller does. None when there is nobody or no answer.
    pub(super) async fn ask(&self, question: &Question) -> Option<Quote> {
        match self {
            Self::Socket(path) => over_socket(path, question).await,
            Self::Local(to) => answered(to, question.clone()).await,
        }
    }
}

async fn over_socket(path: &Path, question: &Question) -> Option<Quote> {
    let mut frame = vec![MARK];
    serde_json::to_writer(&mut frame, question).ok()?;
    let stream = UnixStream::connect(path).await.ok()?;
    let mut framed = Framed::new(stream, codec());
    framed.send(bytes::Bytes::from(frame)).await.ok()?;
    let answer = framed.next().await?.ok()?;
    serde_json::from_slice(&answer).ok()
}

async fn answered(to: &mpsc::Sender<Asked>, question: Question) -> Option<Quote> {
    let (reply, answer) = oneshot::channel();
    // A full queue is not waited for: the answer would come too late.
    to.try_send(Asked { question, reply }).ok()?;
    answer.await.ok()
}

/// The answer to a frame that is a question, as a frame; `None` when there is none. Who gets no
/// answer sees the connection close.
pub(super) async fn answer(frame: &[u8], to: &mpsc::Sender<Asked>) -> Option<bytes::Bytes> {
    let question = match serde_json::from_slice(frame.strip_prefix(&[MARK])?) {
        Ok(question) => question,
        Err(error) => {
            tracing::warn!(%error, "frame is not a question");
            return None;
        }
    };
    let quote = answered(to, question).await?;
    serde_json::to_vec(&quote).ok().map(bytes::Bytes::from)
}

/// Whether a frame is a question.
pub(super) fn is_question(frame: &[u8]) -> bool {
    frame.first() == Some(&MARK)
}
