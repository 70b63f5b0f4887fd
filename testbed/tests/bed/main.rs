//! The test bed by itself, in one binary: starting an emulator costs more than most tests.

#![cfg(test)]

mod boot;
mod cloud;
mod guardian;
mod plane;

use std::sync::Arc;

use testbed::cloud::Moto;
use tokio::sync::OnceCell;

/// Never dropped: the guardian ends it with the test binary.
static MOTO: OnceCell<Arc<Moto>> = OnceCell::const_new();

/// The emulator of all tests here.
async fn moto() -> Arc<Moto> {
    Arc::clone(MOTO.get_or_init(async || Arc::new(Moto::start().await.unwrap())).await)
}
