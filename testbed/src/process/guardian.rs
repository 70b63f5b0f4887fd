//! Ends our children when we die without unwinding: a panic that aborts, SIGKILL, or a child that
//! lives in a static, which is never dropped.
//!
//! A shell waits at the other end of a pipe that only we hold. When the pipe closes, it kills the
//! children still listed, each only if it is the same process as when it was listed (same start
//! time), never another that got its pid.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// Reads `+ PID START`, `- PID` and `folder PATH` lines; at the end of input kills what is left and
/// removes the folders.
const SCRIPT: &str = r#"
list=""
folders=""
while read -r verb pid start; do
  case "$verb" in
    folder) folders="$folders $pid" ;;
    +) list="$list $pid:$start" ;;
    -) rest=""; for one in $list; do [ "${one%%:*}" = "$pid" ] || rest="$rest $one"; done; list="$rest" ;;
  esac
done
for one in $list; do
  stat=$(cat "/proc/${one%%:*}/stat" 2>/dev/null) || continue
  set -- ${stat##*) }
  [ "${20}" = "${one##*:}" ] && kill -9 "${one%%:*}"
done
# Whoever was killed a moment ago may still be writing.
[ -z "$folders" ] || rm -rf $folders || { sleep 1; rm -rf $folders; }
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

/// Removes a folder in the end, if it is still there. Its path has no spaces.
pub(super) fn sweep(folder: &Path) -> Result<()> {
    tell(&format!("folder {}\n", folder.display()))
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
