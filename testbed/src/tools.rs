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
        repository().join("testbed/tools").join(name)
    }
}

/// The repository around the current folder. Programs do not keep the place where they were built,
/// since builds are shared between checkouts.
pub fn repository() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let found = here.ancestors().find(|folder| folder.join("testbed/tools/build.sh").exists());
    found.unwrap_or(&here).to_owned()
}
