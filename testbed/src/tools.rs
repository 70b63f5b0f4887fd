//! Where the programs of the test bed lie.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The cache that `testbed/tools/build.sh` fills.
#[derive(Clone, Debug)]
pub struct Tools {
    cache: PathBuf,
}

impl Tools {
    /// Finds the cache: `HARBINGER_CACHE`, else `~/.cache/harbinger`.
    pub fn locate() -> Result<Self> {
        let cache = match env::var_os("HARBINGER_CACHE") {
            Some(path) => PathBuf::from(path),
            None => {
                Path::new(&env::var_os("HOME").context("neither HARBINGER_CACHE nor HOME is set")?)
                    .join(".cache/harbinger")
            }
        };
        for part in ["tools/current/.complete", "moto/current/.complete"] {
            let path = cache.join(part);
            ensure!(
                path.exists(),
                "the test bed's tools are not built ({}): run `make tools`",
                path.display()
            );
        }
        Ok(Self { cache })
    }

    /// A program by name, such as `kube-apiserver`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.cache.join("tools/current/bin").join(name)
    }

    /// The Python of the emulator's environment.
    pub fn python(&self) -> PathBuf {
        self.cache.join("moto/current/bin/python")
    }

    /// The folder with cert-manager's CRDs.
    pub fn cert_manager_crds(&self) -> PathBuf {
        self.cache.join("tools/current/cert-manager-crds")
    }

    /// A file of the recipes beside `build.sh`.
    pub fn recipe(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name)
    }
}
