//! What our account asked of the API server, and what it was refused: the server's own audit log.
//!
//! A refusal does not always show in a log of ours, since some answers are optional.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use testbed::plane::PlaneOptions;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ['system:serviceaccounts:harbinger-system']
  - level: None
";

/// The audit log of a plane.
pub(crate) struct Audit {
    dir: TempDir,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    #[serde(default)]
    response_status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl Audit {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("policy.yaml"), POLICY)?;
        Ok(Self { dir })
    }

    /// Options of a plane that keeps the log.
    pub(crate) fn options(&self, cert_manager: bool) -> PlaneOptions {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let apiserver_flags = vec![
            format!("--audit-policy-file={}", path("policy.yaml")),
            format!("--audit-log-path={}", path("audit.log")),
        ];
        PlaneOptions { cert_manager, apiserver_flags, ..PlaneOptions::default() }
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let text = std::fs::read_to_string(self.dir.path().join("audit.log"))?;
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Nothing that our account asked for was refused for want of rights.
    pub(crate) fn ensure_allowed(&self) -> Result<()> {
        let entries = self.entries()?;
        ensure!(!entries.is_empty(), "our account asked for nothing");
        let refused =
            entries.iter().filter(|entry| matches!(entry.response_status.code, 401 | 403));
        let refused: BTreeSet<String> =
            refused.map(|entry| format!("{} {}", entry.verb, entry.uri)).collect();
        ensure!(refused.is_empty(), "refused: {refused:#?}");
        Ok(())
    }
}
