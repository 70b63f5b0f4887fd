//! A child process with a log file: started, measured, signalled, restarted, and never left behind.
//!
//! A child is only ever signalled through its unreaped handle, so its pid cannot have passed to
//! somebody else. When our own process dies without unwinding, [`guardian`] ends the children.

mod guardian;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::poll;

/// What to run.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name in messages.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Added to our own environment.
    pub env: Vec<(String, String)>,
    /// Gets standard output and standard error, appended.
    pub log: PathBuf,
}

/// A running (or ended) child.
#[derive(Debug)]
pub struct Process {
    recipe: Recipe,
    child: Child,
}

impl Process {
    /// Starts a child in a process group of its own, so that Ctrl-C in a terminal reaches us alone.
    pub fn spawn(recipe: Recipe) -> Result<Self> {
        let child = launch(&recipe)?;
        Ok(Self { recipe, child })
    }

    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.recipe.log
    }

    /// The exit status, once ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails with the end of the log if the child has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                Err(anyhow!("{} ended ({status}):\n{}", self.recipe.name, self.log_tail(20)))
            }
        }
    }

    /// Sends a signal; a child that has ended gets none.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_none() {
            kill_process(pid_of(&self.child)?, signal)?;
        }
        Ok(())
    }

    /// Waits for the end.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let name = self.recipe.name.clone();
        let child = parking_lot::Mutex::new(&mut self.child);
        poll::until(&format!("end of {name}"), deadline, || {
            let status = child.lock().try_wait();
            async move { status?.context("still running") }
        })
        .await
    }

    /// Asks for the end and, after `grace`, forces it.
    pub async fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        if let Ok(status) = self.wait(grace).await {
            return Ok(status);
        }
        self.kill()?;
        self.child.wait().context("killed child cannot be waited for")
    }

    /// Ends the child at once (SIGKILL) and reaps it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        guardian::forget(self.child.id());
        Ok(())
    }

    /// Starts the same recipe again; the log is appended to.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.ended().is_some(), "{} still runs", self.recipe.name);
        guardian::forget(self.child.id());
        self.child = launch(&self.recipe)?;
        Ok(())
    }

    /// Resident memory in bytes: its own, and pages of files, which two processes of one program
    /// share.
    pub fn rss_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS")
    }

    /// Resident memory of its own in bytes: heap and stacks.
    pub fn own_bytes(&self) -> Result<u64> {
        self.status_bytes("RssAnon")
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no {field}: the process has ended"))?
            .parse()?;
        Ok(kib * 1024)
    }

    /// Processor time used so far, user and system.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th after it.
        let rest = stat.rsplit_once(')').context("malformed stat")?.1;
        let ticks = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.recipe.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Makes a folder for a part of the test bed, removed when dropped or when we die. With
/// `HARBINGER_TESTBED_KEEP` set it stays, for its logs.
pub(crate) fn scratch(prefix: &str) -> Result<TempDir> {
    let keep = env::var_os("HARBINGER_TESTBED_KEEP").is_some();
    let dir = tempfile::Builder::new().prefix(prefix).disable_cleanup(keep).tempdir()?;
    if !keep && !dir.path().as_os_str().as_encoded_bytes().contains(&b' ') {
        guardian::sweep(dir.path())?;
    }
    Ok(dir)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to see a good end, which takes our webhook five seconds. A failure can only
        // mean that the child is gone already.
        self.kill().ok();
    }
}

fn launch(recipe: &Recipe) -> Result<Child> {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&recipe.log)
        .with_context(|| format!("cannot open {}", recipe.log.display()))?;
    let child = Command::new(&recipe.program)
        .args(&recipe.args)
        .envs(recipe.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", recipe.program.display()))?;
    guardian::watch(child.id())?;
    Ok(child)
}

fn pid_of(child: &Child) -> Result<Pid> {
    let raw = i32::try_from(child.id())?;
    Pid::from_raw(raw).context("a child has a positive pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Process {
        Process::spawn(Recipe {
            name: "shell".into(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("WORD".into(), "hello".into())],
            log: dir.join("log"),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn stop_escalates_when_the_child_ignores_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done", dir.path());
        poll::until("trap set", Duration::from_secs(5), || {
            let tail = child.log_tail(1);
            async move { ensure_eq(&tail, "ready") }
        })
        .await
        .unwrap();
        assert!(child.rss_bytes().unwrap() > child.own_bytes().unwrap());
        child.cpu_time().unwrap();
        let status = child.stop(Duration::from_millis(200)).await.unwrap();
        assert!(!status.success());
    }

    #[tokio::test]
    async fn restart_appends_to_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("echo $WORD", dir.path());
        assert!(child.wait(Duration::from_secs(5)).await.unwrap().success());
        child.start_again().unwrap();
        child.wait(Duration::from_secs(5)).await.unwrap();
        assert_eq!(child.log_tail(5), "hello\nhello");
        assert!(child.ensure_running().unwrap_err().to_string().contains("hello"));
    }

    fn ensure_eq(left: &str, right: &str) -> Result<()> {
        ensure!(left == right, "{left:?} is not {right:?}");
        Ok(())
    }
}
