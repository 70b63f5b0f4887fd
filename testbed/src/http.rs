//! A plain HTTP client for loopback: one connection per request, no redirects, no retries.

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// An answer, read to its end.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// An answer of our own.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            hyper::header::CONTENT_TYPE,
            hyper::header::HeaderValue::from_static(content_type),
        );
        Self { status, headers, body: body.into() }
    }

    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// Sends a request and reads the whole answer, whatever its status.
pub async fn send(request: Request<Full<Bytes>>) -> Result<Reply> {
    let uri = request.uri().clone();
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let response =
        client.request(request).await.with_context(|| format!("no answer from {uri}"))?;
    let (parts, body) = response.into_parts();
    let body =
        body.collect().await.with_context(|| format!("answer of {uri} broke off"))?.to_bytes();
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// Fetches a URL.
pub async fn get(url: &str) -> Result<Reply> {
    send(Request::get(url).body(Full::default())?).await
}
