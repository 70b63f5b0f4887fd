//! Self-made certificates for the webhook: an authority and a serving certificate that it signs.
//!
//! Everything but the keys follows from the [`Request`]: no clock and no file is read here. The
//! keys are P-256, which every API server accepts, also one restricted to FIPS algorithms.

mod kept;

pub use kept::{Kept, Pace, Step};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// How far certificates reach back, for API servers whose clocks are behind.
const BACKDATE: Duration = Duration::from_mins(10);

/// Life of the authority where nothing else is asked: ten years, since replacing it means changing
/// the registrations too.
pub const CA_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// Life of a serving certificate where nothing else is asked: one year.
pub const SERVING_LIFETIME: Duration = Duration::from_hours(365 * 24);

/// What certificates are wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the Service.
    pub service: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Other names and addresses that the server is reached by, such as `localhost`.
    pub extra_names: Vec<String>,
    /// Time of issue.
    pub now: Timestamp,
    /// Life of the authority.
    pub ca_lifetime: Duration,
    /// Life of the serving certificate; never beyond the authority's.
    pub serving_lifetime: Duration,
}

impl Request {
    /// A request for `service.namespace.svc` with the usual lifetimes.
    pub fn new(service: impl Into<String>, namespace: impl Into<String>, now: Timestamp) -> Self {
        Self {
            service: service.into(),
            namespace: namespace.into(),
            extra_names: Vec::new(),
            now,
            ca_lifetime: CA_LIFETIME,
            serving_lifetime: SERVING_LIFETIME,
        }
    }

    /// The names that the serving certificate is valid for. The API server dials the third.
    pub fn names(&self) -> Vec<String> {
        let Self { service, namespace, .. } = self;
        let mut names = vec![
            service.clone(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ];
        for name in &self.extra_names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

/// An authority and a serving certificate, as PEM.
#[derive(Clone)]
pub struct Certificates {
    /// Certificate of the authority: the `caBundle` of the registrations.
    pub ca: String,
    /// Key of the authority. Keep it where only the issuer reads it, or throw it away.
    pub ca_key: String,
    /// Serving certificate: `tls.crt`.
    pub certificate: String,
    /// Key of the serving certificate: `tls.key`.
    pub key: String,
}

impl std::fmt::Debug for Certificates {
    /// Leaves the keys out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("ca", &self.ca)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Why certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A name is not a DNS name or an address.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// A lifetime is zero or ends beyond what a certificate can say.
    #[error("the lifetime of the {what} is out of range")]
    Lifetime {
        /// Which certificate.
        what: &'static str,
    },
    /// The given authority cannot be read, or signing fails.
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
}

/// When a certificate (PEM) begins and ends, if it can be read.
pub fn validity(certificate: &str) -> Option<(Timestamp, Timestamp)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    let time = |seconds| Timestamp::from_second(seconds).ok();
    let validity = parsed.validity();
    Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

/// Whether a client that trusts `authorities` (PEM) takes this certificate, or chain (PEM), for
/// `name`.
///
/// # Errors
/// Why it does not.
pub fn verify(chain: &str, authorities: &[u8], name: &str, now: Timestamp) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let read = |pem: &[u8]| -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| text(&e))
    };
    let mut roots = rustls::RootCertStore::empty();
    for authority in read(authorities)? {
        roots.add(authority).map_err(|e| text(&e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| text(&e))?;
    let chain = read(chain.as_bytes())?;
    let (leaf, between) = chain.split_first().ok_or("there is no certificate")?;
    let name = ServerName::try_from(name).map_err(|e| text(&e))?;
    let seconds = u64::try_from(now.as_second()).map_err(|e| text(&e))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_server_cert(leaf, between, &name, &[], now).map_err(|e| text(&e))?;
    Ok(())
}

/// Makes a new authority and a serving certificate signed by it.
pub fn issue(request: &Request) -> Result<Certificates, CertError> {
    let (ca, ca_key) = authority(request)?;
    sign(request, ca, ca_key)
}

/// Makes a new authority: its certificate and key.
fn authority(request: &Request) -> Result<(String, String), CertError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{}.{} webhook CA", request.service, request.namespace));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, request.now, request.ca_lifetime, "authority")?;
    let certificate = params.self_signed(&key)?.pem();
    Ok((certificate, key.serialize_pem()))
}

/// Makes a new serving certificate signed by the authority in `ca` and `ca_key` (PEM), so that a
/// renewal leaves the registrations alone.
pub fn renew(request: &Request, ca: &str, ca_key: &str) -> Result<Certificates, CertError> {
    sign(request, ca.to_owned(), ca_key.to_owned())
}

fn sign(request: &Request, ca: String, ca_key: String) -> Result<Certificates, CertError> {
    let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&ca_key)?)?;
    let key = KeyPair::generate()?;
    let names = request.names();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| alt_name(name)).collect::<Result<_, _>>()?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    // Clients match the alternative names only; a common name has at most 64 characters.
    params.distinguished_name.push(DnType::CommonName, "harbinger webhook");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let lifetime = request.serving_lifetime.min(request.ca_lifetime);
    set_validity(&mut params, request.now, lifetime, "serving certificate")?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Certificates { ca, ca_key, certificate, key: key.serialize_pem() })
}

fn alt_name(name: &str) -> Result<SanType, CertError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let invalid = || CertError::Name { name: name.to_owned() };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if name.len() > 253 || !plain.split('.').all(label) {
        return Err(invalid());
    }
    Ok(SanType::DnsName(name.try_into().map_err(|_| invalid())?))
}

fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    lifetime: Duration,
    what: &'static str,
) -> Result<(), CertError> {
    // 9999-12-31 is the last day that a certificate can name.
    const LAST_SECOND: u64 = 253_402_300_799;
    let now = u64::try_from(now.as_second()).map_err(|_| CertError::Lifetime { what })?;
    let end = now.saturating_add(lifetime.as_secs());
    if lifetime.is_zero() || end > LAST_SECOND {
        return Err(CertError::Lifetime { what });
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now).saturating_sub(BACKDATE);
    params.not_after = epoch + Duration::from_secs(end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn der(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
    }

    #[test]
    fn names_lifetimes_and_signature_are_as_asked() {
        let mut request =
            Request::new("harbinger", "harbinger-system", "2026-03-01T00:00:00Z".parse().unwrap());
        request.extra_names = vec!["localhost".into(), "127.0.0.1".into()];
        request.serving_lifetime = Duration::from_secs(20);
        let made = issue(&request).unwrap();
        let (ca_der, leaf_der) = (der(&made.ca), der(&made.certificate));
        let ca = X509Certificate::from_der(&ca_der).unwrap().1;
        let leaf = X509Certificate::from_der(&leaf_der).unwrap().1;
        let start = request.now.as_second();
        assert_eq!(leaf.validity().not_before.timestamp(), start - 600);
        assert_eq!(leaf.validity().not_after.timestamp(), start + 20);
        let (from, until) = validity(&made.certificate).unwrap();
        assert_eq!((from.as_second(), until.as_second()), (start - 600, start + 20));
        assert_eq!(validity("no certificate"), None);
        assert!(ca.is_ca() && !leaf.is_ca());
        assert_eq!(leaf.issuer(), ca.subject());
        let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value);
        for name in ["harbinger.harbinger-system.svc\"", "localhost", "[127, 0, 0, 1]"] {
            assert!(names.contains(name), "{name} in {names}");
        }
    }

    #[test]
    fn only_the_right_authority_name_and_time_are_trusted() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let made = issue(&Request::new("h", "ns", now)).unwrap();
        let other = issue(&Request::new("h", "ns", now)).unwrap();
        let check = |ca: &str, name: &str, now| verify(&made.certificate, ca.as_bytes(), name, now);
        assert_eq!(check(&made.ca, "h.ns.svc", now), Ok(()));
        assert!(
            check(&other.ca, "h.ns.svc", now).unwrap_err().contains("invalid peer certificate")
        );
        assert!(check(&made.ca, "h.other.svc", now).is_err());
        assert!(check(&made.ca, "h.ns.svc", "2028-03-01T00:00:00Z".parse().unwrap()).is_err());
        assert!(check("", "h.ns.svc", now).is_err());
        let both = format!("{}{}", other.ca, made.ca);
        assert_eq!(check(&both, "h.ns.svc", now), Ok(()), "a bundle holds several");
    }

    #[test]
    fn renewal_keeps_the_authority_and_changes_the_key() {
        let request = Request::new("h", "ns", "2026-03-01T00:00:00Z".parse().unwrap());
        let first = issue(&request).unwrap();
        let second = renew(&request, &first.ca, &first.ca_key).unwrap();
        assert_eq!(first.ca, second.ca);
        assert_ne!(first.key, second.key);
        let authority = X509Certificate::from_der(&der(&first.ca)).unwrap().1.subject().to_string();
        let issuer =
            X509Certificate::from_der(&der(&second.certificate)).unwrap().1.issuer().to_string();
        assert_eq!(authority, issuer);
    }

    #[test]
    fn bad_input_is_refused() {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let mut request = Request::new("h", "ns", now);
        request.extra_names = vec!["not a name".into()];
        assert!(matches!(issue(&request), Err(CertError::Name { .. })));
        let mut request = Request::new("h", "ns", now);
        request.serving_lifetime = Duration::ZERO;
        assert!(matches!(issue(&request), Err(CertError::Lifetime { .. })));
        let mut request = Request::new("h", "ns", now);
        request.ca_lifetime = Duration::MAX;
        assert!(matches!(issue(&request), Err(CertError::Lifetime { .. })));
    }
}
