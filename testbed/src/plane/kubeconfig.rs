//! Kubeconfig files for one cluster and one token.

use std::fs;
use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Writes the file as JSON, which every YAML reader takes.
pub(super) fn write(path: &Path, url: &str, ca_pem: &str, token: &str) -> Result<()> {
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "testbed",
            "cluster": { "server": url, "certificate-authority-data": STANDARD.encode(ca_pem) },
        }],
        "users": [{ "name": "user", "user": { "token": token } }],
        "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": "user" } }],
        "current-context": "testbed",
    });
    fs::write(path, serde_json::to_vec_pretty(&content)?)?;
    Ok(())
}
