//! The webhook asked without an API server between: what only a broken or hostile client sends.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name that the API server verifies.
const NAME: &str = "harbinger.harbinger-system.svc";

/// A client that trusts what the API server trusts.
pub(crate) struct Direct {
    address: String,
    connector: TlsConnector,
}

impl Direct {
    /// `authorities` is PEM.
    pub(crate) fn new(address: String, authorities: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities) {
            roots.add(authority?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&self.address).await?;
        Ok(self.connector.connect(ServerName::try_from(NAME)?, tcp).await?)
    }

    /// A handshake; gives the certificate that was shown and verified.
    pub(crate) async fn certificate(&self) -> Result<Vec<u8>> {
        let stream = self.connect().await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(shown.first().context("no certificate")?.to_vec())
    }

    /// Posts a body on a connection of its own.
    pub(crate) async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<(StatusCode, String)> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post(path).header("host", NAME).header("content-type", content_type);
        let response = client.send_request(request.body(Full::new(body.into()))?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
