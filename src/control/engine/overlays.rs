//! What overlays make of the catalogs, kept current.

use std::sync::Arc;

use super::Engine;
use crate::cloud::Cloud;
use crate::control::Clock;
use crate::server::ApiServer;

impl<A: ApiServer, C: Cloud, K: Clock> Engine<A, C, K> {
    /// Lays overlays over the catalogs again if something of either changed. Followers do it, too:
    /// they answer what pods would cost.
    pub(super) async fn lay_overlays(&mut self) {
        if !self.unlaid {
            return;
        }
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let catalogs = self.catalogs.borrow().clone();
        if snapshot.overlays.is_empty() && catalogs.overlays().is_empty() {
            return;
        }
        self.unlaid = false;
        let laid = tokio::task::spawn_blocking(move || catalogs.overlaid(&snapshot)).await;
        match laid {
            Ok(catalogs) => drop(self.catalogs.send_replace(catalogs)),
            Err(error) => tracing::error!(%error, "overlays were not laid"),
        }
    }
}
