//! The provisioner's side: a socket that any number of senders may connect to.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::question::{self, Asked};
use super::{Intent, codec};

/// Intents that may wait for the ledger; a full queue makes senders wait, whose own queues are
/// bounded too.
const QUEUE: usize = 1024;

/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("another process listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The path is taken by something else, which is left alone.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Accepts senders and reads their intents. The socket file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    socket: UnixListener,
    intents: mpsc::Sender<Intent>,
    questions: mpsc::Sender<Asked>,
}

/// What senders have sent.
#[derive(Debug)]
pub struct Inbox {
    /// Intents.
    pub intents: mpsc::Receiver<Intent>,
    /// Questions; answers that come late are not waited for.
    pub questions: mpsc::Receiver<Asked>,
}

impl Inbox {
    /// The next intent; none when all senders are gone.
    pub async fn recv(&mut self) -> Option<Intent> {
        self.intents.recv().await
    }
}

/// Makes the socket at `path` with permissions `mode` (0o600, or 0o660 where the two containers
/// share a group only). A file that a dead process left is replaced. Run the [`Listener`] as a task.
pub async fn listen(path: impl Into<PathBuf>, mode: u32) -> Result<(Listener, Inbox), ListenError> {
    let path = path.into();
    match std::fs::symlink_metadata(&path) {
        Ok(file) if !file.file_type().is_socket() => return Err(ListenError::NotASocket { path }),
        Ok(_) if UnixStream::connect(&path).await.is_ok() => {
            return Err(ListenError::InUse { path });
        }
        _ => {}
    }
    let socket =
        bind(&path, mode).map_err(|source| ListenError::Io { path: path.clone(), source })?;
    let (sender, intents) = mpsc::channel(QUEUE);
    let (asking, questions) = mpsc::channel(question::QUEUE);
    let listener = Listener { path, socket, intents: sender, questions: asking };
    Ok((listener, Inbox { intents, questions }))
}

/// Binds beside `path` and renames, so that nobody can connect before the permissions are set and
/// a stale file is replaced in one step.
fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&beside, path)?;
    Ok(socket)
}

impl Listener {
    /// Accepts and reads until cancelled or until the receiver is gone.
    pub async fn run(self, cancel: CancellationToken) {
        let tracker = TaskTracker::new();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = self.intents.closed() => break,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (intents, questions) = (self.intents.clone(), self.questions.clone());
                        let cancel = cancel.clone();
                        tracker.spawn(async move {
                            tokio::select! {
                                biased;
                                () = cancel.cancelled() => {}
                                () = read(stream, intents, questions) => {}
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a sender of intents");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Readers end with the token, or at their next frame when the receiver is gone.
        tracker.close();
        if cancel.is_cancelled() {
            tracker.wait().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "socket file was already gone");
        }
    }
}

/// Reads one sender until it goes away or breaks the framing. A frame that is no intent (of a newer
/// or older version) is skipped.
async fn read(stream: UnixStream, intents: mpsc::Sender<Intent>, questions: mpsc::Sender<Asked>) {
    let mut frames = Framed::new(stream, codec());
    while let Some(frame) = frames.next().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, "sender of intents broke the framing");
                return;
            }
        };
        if question::is_question(&frame) {
            let Some(answer) = question::answer(&frame, &questions).await else { return };
            if frames.send(answer).await.is_err() {
                return;
            }
            continue;
        }
        match serde_json::from_slice(&frame) {
            Ok(intent) => {
                if intents.send(intent).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "frame is not an intent"),
        }
    }
}
