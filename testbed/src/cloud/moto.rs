//! moto, the EC2 emulator, as a process. One serves all tests of a binary, each in its own account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::body::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::call::Call;
use crate::http::{self, Reply};
use crate::process::{Process, Recipe};
use crate::tools::Tools;
use crate::{poll, ports, process};

/// A start takes 1.6 s on a quiet machine.
const START: Duration = Duration::from_mins(1);
const ATTEMPTS: u32 = 3;

/// A running emulator.
pub struct Moto {
    process: Mutex<Process>,
    url: String,
    catalog: Arc<Catalog>,
    _dir: TempDir,
}

impl Moto {
    /// Starts moto with our images and SSM parameters; unknown types and images are refused.
    pub async fn start() -> Result<Self> {
        let tools = Tools::locate()?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&tools).await {
                // Somebody else may have taken the port between our look and moto's start.
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn start_once(tools: &Tools) -> Result<Self> {
        let dir = process::scratch("harbinger-moto-")?;
        let port = ports::free(1)?.into_iter().next().unwrap_or_default();
        let path = |name: &str| Tools::recipe(name).display().to_string();
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let process = Process::spawn(Recipe {
            name: "moto".into(),
            program: tools.python(),
            args: vec![
                path("moto_launch.py"),
                "-H".into(),
                "127.0.0.1".into(),
                "-p".into(),
                port.to_string(),
            ],
            env: vec![
                setting("MOTO_AMIS_PATH", path("amis.json")),
                setting("SSM_SEED", path("ssm.json")),
                setting("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "true".into()),
                setting("MOTO_ENABLE_AMI_VALIDATION", "true".into()),
            ],
            log: dir.path().join("moto.log"),
        })?;
        let process = Mutex::new(process);
        let url = format!("http://127.0.0.1:{port}");
        let ready = format!("{url}/moto-api/");
        poll::until("moto", START, async || {
            let running = process.lock().ensure_running();
            if let Err(dead) = running {
                return Ok(Err(dead));
            }
            let reply = http::get(&ready).await?;
            ensure!(reply.status == 200, "{}", reply.status);
            Ok(Ok(()))
        })
        .await??;
        Ok(Self { process, url, catalog: Arc::default(), _dir: dir })
    }

    /// Where moto listens, without the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn pid(&self) -> u32 {
        self.process.lock().pid()
    }

    /// The last lines of moto's log, tracebacks included.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.lock().log_tail(lines)
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }
}

/// Answers that never change: the list of all instance types costs moto two seconds each time.
#[derive(Default)]
pub(super) struct Catalog(Mutex<BTreeMap<(String, Bytes), Reply>>);

impl Catalog {
    pub(super) fn get(&self, region: &str, call: &Call) -> Option<Reply> {
        self.0.lock().get(&(region.to_owned(), call.body.clone())).cloned()
    }

    pub(super) fn keep(&self, region: &str, call: &Call, reply: &Reply) {
        let constant = ["DescribeInstanceTypes", "DescribeInstanceTypeOfferings"];
        if constant.contains(&call.action.as_str()) && reply.status == 200 {
            self.0.lock().insert((region.to_owned(), call.body.clone()), reply.clone());
        }
    }
}
