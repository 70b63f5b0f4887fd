//! The serving certificate: read from files, checked, and replaced while serving.
//!
//! Files are polled by content. The kubelet replaces a mounted Secret by moving a symbolic link, so
//! a watch on the file goes deaf after the first change.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Clock;
use super::metrics::Metrics;

/// Where the serving certificate comes from.
#[derive(Clone)]
pub enum CertificateSource {
    /// PEM files, as a mounted Secret has them. The certificate's file may hold a chain.
    Files {
        /// `tls.crt`
        certificate: PathBuf,
        /// `tls.key`
        key: PathBuf,
    },
    /// A pair in memory, which its maker may replace.
    Shared(Arc<ArcSwap<PemPair>>),
}

/// A certificate, or chain, and its key as PEM.
#[derive(Clone)]
pub struct PemPair {
    /// `tls.crt`
    pub certificate: String,
    /// `tls.key`
    pub key: String,
}

impl fmt::Debug for PemPair {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemPair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl fmt::Debug for CertificateSource {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { certificate, key } => {
                f.debug_struct("Files").field("certificate", certificate).field("key", key).finish()
            }
            Self::Shared(_) => f.write_str("Shared"),
        }
    }
}

/// Why a certificate is not served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text holds no certificate, or one that cannot be parsed.
    #[error("the certificate is not valid PEM: {0}")]
    Certificate(String),
    /// The text holds no key, or one that cannot be parsed.
    #[error("the key is not valid PEM: {0}")]
    Key(String),
    /// Key and certificate are of different pairs, as for a moment during a rotation.
    #[error("key and certificate do not belong together: {0}")]
    Mismatch(rustls::Error),
    /// The certificate has ended.
    #[error("the certificate ended {0}")]
    Expired(jiff::Timestamp),
}

/// PEM texts of a pair, compared to notice a change.
#[derive(Eq, PartialEq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Holds the pair in use and hands it to handshakes.
pub(super) struct Certificate {
    source: CertificateSource,
    current: ArcSwap<CertifiedKey>,
    not_after: AtomicI64,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Certificate {
    /// Loads the first pair.
    pub(super) fn load(
        source: CertificateSource,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, CertificateError> {
        let (key, not_after) = check(&read(&source)?, clock().as_second())?;
        let certificate = Self {
            source,
            current: ArcSwap::from_pointee(key),
            not_after: AtomicI64::new(not_after),
            clock,
            metrics,
        };
        certificate.publish_expiry();
        Ok(certificate)
    }

    /// Whether the certificate in use has not ended.
    pub(super) fn is_valid(&self) -> bool {
        self.seconds_left() > 0
    }

    fn seconds_left(&self) -> i64 {
        self.not_after.load(Ordering::Relaxed) - (self.clock)().as_second()
    }

    fn publish_expiry(&self) {
        self.metrics.certificate_expires_in.set(self.seconds_left());
    }

    /// Reads the source every `period` and takes up a new pair that is in order; any other leaves
    /// the old one in use and is tried again, since the second file may follow a moment later.
    pub(super) async fn poll(&self, period: Duration, cancel: CancellationToken) {
        let mut seen = read(&self.source).ok();
        let mut last_error = String::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
            self.publish_expiry();
            let pair = match read(&self.source) {
                Ok(pair) if seen.as_ref() == Some(&pair) => continue,
                Ok(pair) => pair,
                Err(error) => {
                    self.refuse(&error, &mut last_error);
                    continue;
                }
            };
            match check(&pair, (self.clock)().as_second()) {
                Ok((key, not_after)) => {
                    self.current.store(Arc::new(key));
                    self.not_after.store(not_after, Ordering::Relaxed);
                    self.publish_expiry();
                    self.metrics.certificate_loads.get_or_create(&vec![("result", "loaded")]).inc();
                    tracing::info!(seconds_left = self.seconds_left(), "certificate replaced");
                    seen = Some(pair);
                    last_error.clear();
                }
                Err(error) => self.refuse(&error, &mut last_error),
            }
        }
    }

    /// Counts and logs a refusal once, not at every poll.
    fn refuse(&self, error: &CertificateError, last: &mut String) {
        let text = error.to_string();
        if *last != text {
            self.metrics.certificate_loads.get_or_create(&vec![("result", "refused")]).inc();
            tracing::warn!(error = text, "new certificate refused, the old one stays in use");
            *last = text;
        }
    }
}

/// Reads the pair. The files are a few KiB and local, so this does not leave the async thread.
fn read(source: &CertificateSource) -> Result<Pair, CertificateError> {
    match source {
        CertificateSource::Files { certificate, key } => {
            let read = |path: &PathBuf| {
                std::fs::read(path)
                    .map_err(|source| CertificateError::Read { path: path.clone(), source })
            };
            Ok(Pair { certificate: read(certificate)?, key: read(key)? })
        }
        CertificateSource::Shared(pair) => {
            let PemPair { certificate, key } = (**pair.load()).clone();
            Ok(Pair { certificate: certificate.into(), key: key.into() })
        }
    }
}

/// Checks that the pair can be served at `now`; also gives the end of the leaf's life, both in
/// seconds since the epoch.
fn check(pair: &Pair, now: i64) -> Result<(CertifiedKey, i64), CertificateError> {
    let chain = CertificateDer::pem_slice_iter(&pair.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let Some(leaf) = chain.first() else {
        return Err(CertificateError::Certificate("it holds no certificate".to_owned()));
    };
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let not_after = parsed.validity().not_after.timestamp();
    if not_after <= now {
        let end = jiff::Timestamp::from_second(not_after).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        return Err(CertificateError::Expired(end));
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.key)
        .map_err(|error| CertificateError::Key(error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch(error),
        error => CertificateError::Key(error.to_string()),
    })?;
    Ok((certified, not_after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs;

    fn made() -> certs::Certificates {
        certs::issue(&certs::Request::new("h", "ns", "2026-03-01T00:00:00Z".parse().unwrap()))
            .unwrap()
    }

    fn pair(certificate: &str, key: &str) -> Pair {
        Pair { certificate: certificate.into(), key: key.into() }
    }

    #[test]
    fn only_a_whole_and_living_pair_is_served() {
        let (a, b) = (made(), made());
        let now = 1_772_400_000; // 2026-03-01T21:20:00Z
        let chain = format!("{}{}", a.certificate, a.ca);
        let (key, not_after) = check(&pair(&chain, &a.key), now).unwrap();
        assert_eq!(key.cert.len(), 2, "intermediates are sent along");
        assert_eq!(not_after, 1_772_323_200 + 365 * 86_400);
        let error = |pair: &Pair, now| check(pair, now).unwrap_err();
        assert!(matches!(error(&pair(&a.certificate, &b.key), now), CertificateError::Mismatch(_)));
        assert!(matches!(
            error(&pair(&a.certificate, &a.key), not_after),
            CertificateError::Expired(_)
        ));
        assert!(matches!(error(&pair("", &a.key), now), CertificateError::Certificate(_)));
        assert!(matches!(error(&pair(&a.certificate, "x"), now), CertificateError::Key(_)));
    }
}
