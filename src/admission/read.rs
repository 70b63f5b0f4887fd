//! Reading a body within its bounds.

use axum::body::Body;
use bytes::BytesMut;
use http_body_util::BodyExt;

/// How reading a body ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Read {
    /// All of it is in the buffer.
    Whole,
    /// It is longer than `keep`; the buffer holds that much of its beginning.
    Longer,
    /// The client went away.
    Broken,
}

/// Reads the body, keeping at most `keep` bytes in `buffer`.
///
/// What is beyond is read too and thrown away, up to `discard` bytes: a client that is still
/// sending when the connection closes would lose the answer. The buffer belongs to the caller, so
/// that it is there when a deadline ends the reading.
pub(super) async fn read(
    body: &mut Body,
    buffer: &mut BytesMut,
    keep: usize,
    discard: usize,
) -> Read {
    let mut beyond = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Read::Broken };
        let Ok(data) = frame.into_data() else { continue };
        let room = keep - buffer.len();
        let kept = data.len().min(room);
        buffer.extend_from_slice(&data[..kept]);
        beyond += data.len() - kept;
        if beyond > discard {
            return Read::Longer;
        }
    }
    if beyond > 0 { Read::Longer } else { Read::Whole }
}
