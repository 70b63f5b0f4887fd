//! A Secret as a kubelet mounts it, without its delay: files behind a link that moves when the
//! Secret changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};

/// The link that a kubelet moves, so that all files change at once.
pub(super) const DATA: &str = "..data";

/// Keeps a folder as the Secret is, for as long as it runs.
pub(super) async fn follow(client: Client, namespace: String, name: String, folder: PathBuf) {
    let api = Api::<Secret>::namespaced(client, &namespace);
    let mut secrets = Box::pin(watch_object(api, &name));
    let mut version = 0;
    while let Some(secret) = secrets.next().await {
        // A gap ends in the object as it is then.
        let Ok(Some(secret)) = secret else { continue };
        match write(&folder, version, &secret.data.unwrap_or_default()) {
            Ok(()) => version += 1,
            Err(error) => tracing::warn!(%error, name, "mounted Secret is not updated"),
        }
    }
}

/// Writes files as links into `..data`, itself a link to a folder of this version, which is moved
/// into place in one step.
fn write(folder: &Path, version: u32, files: &BTreeMap<String, ByteString>) -> io::Result<()> {
    let data = folder.join(format!("..version_{version}"));
    fs::create_dir_all(&data)?;
    for (name, bytes) in files {
        fs::write(data.join(name), &bytes.0)?;
        let link = folder.join(name);
        if !link.is_symlink() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    let next = folder.join("..data_tmp");
    symlink(&data, &next)?;
    fs::rename(&next, folder.join(DATA))?;
    if let Some(old) = version.checked_sub(1) {
        fs::remove_dir_all(folder.join(format!("..version_{old}")))?;
    }
    Ok(())
}
