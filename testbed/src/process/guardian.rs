//! Ends our children when we die without unwinding: a panic that aborts, SIGKILL, or a child that
//! lives in a static, which is never dropped.
//!
//! A shell waits at the other end of a pipe that only we hold. When the pipe closes, it kills the
//! children still listed, each only if it is the same process as when it was listed (same start
//! time), never another that got its pid.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// Reads `+ PID START` and `- PID` lines; at the end of input kills what is left.
const SCRIPT: &str = r#"
list=""
while read -r verb pid start; do
  case "$verb" in
    +) list="$list $pid:$start" ;;
    -) rest=""; for one in $list; do [ "${one%%:*}" = "$pid" ] || rest="$rest $one"; done; list="$rest" ;;
  esac
done
for one in $list; do
  stat=$(cat "/proc/${one%%:*}/stat" 2>/dev/null) || continue
  set -- ${stat##*) }
  [ "${20}" = "${one##*:}" ] && kill -9 "${one%%:*}"
done
"#;

static GUARDIAN: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Lists a child.
pub(super) fn watch(pid: u32) -> Result<()> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Field 22 is the start time; the first two hold the pid and the name in parentheses.
    let rest = stat.rsplit_once(')').context("malformed stat")?.1;
    let start = rest.split_whitespace().nth(19).context("stat has no start time")?;
    tell(&format!("+ {pid} {start}\n"))
}

/// Takes a reaped child off the list.
pub(super) fn forget(pid: u32) {
    // Harmless when it fails: the start time protects whoever gets the pid next.
    tell(&format!("- {pid}\n")).ok();
}

fn tell(line: &str) -> Result<()> {
    let mut guardian = GUARDIAN.lock();
    if guardian.is_none() {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the guardian shell")?;
        *guardian = shell.stdin.take();
    }
    let pipe = guardian.as_mut().context("the guardian has no input")?;
    pipe.write_all(line.as_bytes()).context("the guardian is gone")
}
