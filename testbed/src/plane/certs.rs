//! The plane's authority, its serving certificate, the front proxy's client certificate and the key
//! that signs ServiceAccount tokens. All are P-256 and live as long as the plane's folder.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Writes `ca`, `serving`, `front-proxy` (`.crt` and `.key`) and `accounts` (`.key` and `.pub`) into
/// `dir` and returns the authority's certificate, PEM.
pub(super) fn write(dir: &Path, first_cluster_ip: &str) -> Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "testbed");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let ca_pem = params.self_signed(&key)?.pem();
    fs::write(dir.join("ca.crt"), &ca_pem)?;
    fs::write(dir.join("ca.key"), key.serialize_pem())?;
    let issuer = Issuer::new(params, key);

    let names = [
        "127.0.0.1",
        first_cluster_ip,
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let names = names.map(str::to_owned).to_vec();
    leaf(dir, "serving", names, ExtendedKeyUsagePurpose::ServerAuth, &issuer)?;
    leaf(dir, "front-proxy", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, &issuer)?;

    let accounts = KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    Ok(ca_pem)
}

fn leaf(
    dir: &Path,
    name: &str,
    alternatives: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<()> {
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    fs::write(dir.join(format!("{name}.crt")), params.signed_by(&key, issuer)?.pem())?;
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}
