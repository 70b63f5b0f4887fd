//! A Secret as a kubelet mounts it: files behind a symbolic link that moves when the Secret changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use tokio::task::JoinHandle;

/// cert-manager takes some seconds for the first certificate.
const DEADLINE: Duration = Duration::from_secs(60);
/// The link that a kubelet moves, so that all files change at once.
const DATA: &str = "..data";

/// A folder that follows a Secret until dropped.
#[derive(Debug)]
pub struct SecretMount {
    folder: PathBuf,
    task: JoinHandle<()>,
}

impl SecretMount {
    /// Waits for the Secret and writes its keys as files.
    pub(super) async fn start(
        client: Client,
        namespace: &str,
        secret: &str,
        folder: PathBuf,
    ) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let api = Api::<Secret>::namespaced(client, namespace);
        let mut changes = watch_object(api, secret).boxed();
        let first = tokio::time::timeout(DEADLINE, async {
            loop {
                match changes.next().await.context("the watch ended")? {
                    // The issuer may make the Secret first and fill it later.
                    Ok(Some(secret)) if complete(&secret) => return anyhow::Ok(secret),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "watching a Secret"),
                }
            }
        });
        let first = first.await.with_context(|| {
            format!("no Secret {namespace}/{secret} with a certificate within {DEADLINE:?}")
        })??;
        let mut generation = 0;
        place(&folder, generation, &first)?;
        let mounted = folder.clone();
        let task = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                let Ok(Some(secret)) = change else { continue };
                generation += 1;
                if let Err(error) = place(&mounted, generation, &secret) {
                    tracing::warn!(%error, "mounted Secret is not updated");
                }
            }
        });
        Ok(Self { folder, task })
    }

    /// Where the files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SecretMount {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn complete(secret: &Secret) -> bool {
    let data = secret.data.as_ref();
    data.and_then(|data| data.get("tls.crt")).is_some_and(|bytes| !bytes.0.is_empty())
}

/// Writes a new folder, then moves the link to it.
fn place(folder: &Path, generation: u32, secret: &Secret) -> Result<()> {
    let version = format!("..{generation}");
    let inner = folder.join(&version);
    fs::create_dir_all(&inner)?;
    for (name, bytes) in secret.data.iter().flatten() {
        fs::write(inner.join(name), &bytes.0)?;
        let outer = folder.join(name);
        if outer.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(name), outer)?;
        }
    }
    let next = folder.join("..next");
    symlink(&version, &next)?;
    fs::rename(next, folder.join(DATA))?;
    if let Some(old) = generation.checked_sub(1) {
        fs::remove_dir_all(folder.join(format!("..{old}"))).ok();
    }
    Ok(())
}
