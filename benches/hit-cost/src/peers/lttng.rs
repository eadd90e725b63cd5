//! LTTng-UST: a function that the compiler has given calls at its entry and its return, which a preloaded library
//! records. Its daemon is started for the row and stopped again.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Lab;
use crate::answer;
use crate::case::Case;
use crate::command::{self, limited};
use crate::samples::Samples;

const LIBRARY: &str = "liblttng-ust-cyg-profile-fast.so.1";
const SESSION: &str = "hit-cost";
/// How often, and after how long, the daemon is asked whether it listens.
const TRIES: u32 = 25;
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) fn measure(case: &Case, lab: &Lab<'_>) -> Result<Samples> {
    let home = lab.hot.folder();
    let _daemon = Daemon::start(home)?;
    let data = home.join("lttng");
    let _ = std::fs::remove_dir_all(&data);
    let output = format!("--output={}", data.display());
    let lttng = |words: &[&str]| command::text(limited("lttng").env("LTTNG_HOME", home).args(words));
    let _ = lttng(&["destroy", SESSION]);
    lttng(&["create", SESSION, &output])?;
    lttng(&["enable-event", "--userspace", "lttng_ust_cyg_profile*"])?;
    lttng(&["start"])?;
    let mut program = limited(lab.hot.path());
    let measured = command::output(program.args(lab.hot.arguments(case)).env("LD_PRELOAD", LIBRARY));
    lttng(&["stop"])?;
    lttng(&["destroy", SESSION])?;
    let mut samples = answer::of(&measured?)?;
    let text = command::text(limited("babeltrace2").arg(&data).args(["-c", "sink.utils.counter"]))?;
    let (recorded, lost) = events(&text).context("babeltrace2 counts no events")?;
    if recorded == 0 {
        bail!("nothing was recorded: {LIBRARY} is not there");
    }
    // Two for each call.
    samples.hits = Some((recorded + lost) / 2);
    samples.lost = lost / 2;
    Ok(samples)
}

/// Recorded and discarded: `   N Event messages`, `   N Discarded event messages`. Said again and again; the last is true.
fn events(text: &str) -> Option<(u64, u64)> {
    let number = |kind: &str| {
        let mut lines = text.lines().rev().filter_map(|line| line.trim().split_once(' '));
        lines.find(|(_, rest)| rest.starts_with(kind)).and_then(|(number, _)| number.parse().ok())
    };
    Some((number("Event message")?, number("Discarded event message").unwrap_or(0)))
}

/// The session daemon; one that runs already is used and left alone.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn start(home: &Path) -> Result<Self> {
        let log = File::create(home.join("lttng-sessiond.log")).context("a file")?;
        let mut command = Command::new("lttng-sessiond");
        command.env("LTTNG_HOME", home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = Self(command.spawn().context("cannot start lttng-sessiond")?);
        for _ in 0..TRIES {
            sleep(PATIENCE);
            if command::text(limited("lttng").env("LTTNG_HOME", home).arg("list")).is_ok() {
                return Ok(daemon);
            }
        }
        bail!("lttng-sessiond does not listen")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked, not killed: it removes its sockets and its consumers.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_and_discarded_events_are_told_apart() {
        let text = "          10001 Event messages\n              0 Discarded event messages\n\
                    \n          11378 Event messages\n              2 Stream beginning messages\n\
                    \n              4 Discarded event messages\n          11386 messages (TOTAL)\n";
        assert_eq!(events(text), Some((11378, 4)));
        assert_eq!(events("ERROR\n"), None);
    }
}
