//! Short digests: names and hashes that must be the same on every machine.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The first `bytes` bytes of the SHA-256 of `data`, in hexadecimal.
pub fn hex(data: impl AsRef<[u8]>, bytes: usize) -> String {
    Sha256::digest(data).iter().take(bytes).fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ok = write!(text, "{byte:02x}");
        text
    })
}
