//! `harbinger run`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::provisioner::Provisioner;
use super::webhook::Serving;
use crate::app::{provisioner, shutdown, webhook};
use crate::intent;

/// Both roles in one process, for development. In a cluster they are two containers, so that a
/// fault of one does not touch the other.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    provisioner: Provisioner,
    #[command(flatten)]
    serving: Serving,
    /// Address of the webhook's health and metrics
    #[arg(long, env = "HARBINGER_WEBHOOK_METRICS_LISTEN", default_value = "0.0.0.0:8081")]
    webhook_metrics_listen: SocketAddr,
}

impl Run {
    pub(super) fn run(self) -> Result<ExitCode> {
        self.provisioner.logging.start()?;
        let webhook = match self.serving.options(
            self.provisioner.kubeconfig.clone(),
            self.webhook_metrics_listen,
            None,
            self.provisioner.judging.clone(),
        ) {
            Ok(options) => options,
            Err(message) => return Ok(super::complain(&[message])),
        };
        let provisioner = self.provisioner.options()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(both(webhook, provisioner))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs both until a signal comes or one fails, which ends the other.
async fn both(webhook: webhook::Options, provisioner: provisioner::Options) -> Result<()> {
    let cancel = CancellationToken::new();
    let signals = cancel.clone();
    #[expect(clippy::disallowed_methods, reason = "nobody waits for signals that do not come")]
    tokio::spawn(async move { shutdown::on_signal(signals).await });
    let (sender, intents) = intent::local();
    let ended = async |result: Result<()>| {
        cancel.cancel();
        result
    };
    let admission =
        async { ended(webhook::serve(webhook, Some(sender), cancel.clone()).await).await };
    let buying =
        async { ended(provisioner::serve(provisioner, Some(intents), cancel.clone()).await).await };
    let (admission, buying) = tokio::join!(admission, buying);
    admission.and(buying)
}
