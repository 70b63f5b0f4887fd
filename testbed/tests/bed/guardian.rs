//! Nothing stays behind when a test binary dies without unwinding.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, abort};
use std::time::Duration;

use anyhow::{Context, ensure};
use testbed::poll;
use testbed::process::{Process, Recipe};

/// Folder for the copy of this test that dies.
const DIES: &str = "HARBINGER_TESTBED_DIES";
const NAME: &str = "guardian::children_end_with_a_parent_that_aborts";

#[tokio::test]
async fn children_end_with_a_parent_that_aborts() {
    if let Some(dir) = env::var_os(DIES) {
        let dir = PathBuf::from(dir);
        let child = Process::spawn(Recipe {
            name: "sleep".into(),
            program: "/bin/sleep".into(),
            args: vec!["600".into()],
            env: Vec::new(),
            log: dir.join("log"),
        })
        .unwrap();
        fs::write(dir.join("pid"), child.pid().to_string()).unwrap();
        abort();
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = Command::new(env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(DIES, dir.path())
        .output()
        .unwrap();
    assert!(!copy.status.success());
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    poll::until("end of the child", Duration::from_secs(10), async || {
        // A child that nobody has reaped yet is dead all the same.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(()) };
        let state = stat.rsplit_once(')').context("malformed stat")?.1.trim_start();
        ensure!(state.starts_with('Z'), "still runs");
        Ok(())
    })
    .await
    .unwrap();
}
