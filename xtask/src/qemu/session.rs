//! A scripted session with a running machine.
//!
//! Three threads, so that nobody waits for a machine that neither reads nor writes: one reads what it prints, one
//! writes what is typed, and the caller's decides and watches the clock. When the caller's gives up, the machine is
//! killed, which ends the other two: the pipes break.

use std::io::{Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::prompt::Prompts;

/// Typed where a script ends without having halted the machine.
const END: &str = "halt";
/// What stays in memory of the output: a machine gone wild prints without end.
const MOST_OUTPUT: usize = 64 << 20;
/// How many lines of the output an error shows.
const LAST_LINES: usize = 8;

/// How a session went.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) output: String,
    pub(super) status: ExitStatus,
    pub(super) first_prompt: Option<Duration>,
}

/// The lines of a script that are typed.
fn typed(script: &str) -> Vec<String> {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.chain([END]).map(|line| format!("{line}\n")).collect()
}

/// Types a script into a child's standard input, a line after each prompt, until it has ended.
///
/// # Errors
///
/// If the time is over, if the child asks for more than the script has, or prints more than can be meant. The child
/// has been killed then.
pub(super) fn run(mut child: Child, script: &str, timeout: Duration, show: bool) -> Result<Session> {
    let result = converse(&mut child, script, timeout, show);
    if result.is_err() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn converse(child: &mut Child, script: &str, timeout: Duration, show: bool) -> Result<Session> {
    let output = read(child.stdout.take().context("the machine's output is not piped")?);
    let keys = write(child.stdin.take().context("the machine's input is not piped")?);
    let mut listener = Listener::new(script, keys, show);
    loop {
        match output.recv_timeout(timeout.saturating_sub(listener.start.elapsed())) {
            Ok(bytes) => listener.hear(&bytes)?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => return listener.give_up(timeout),
        }
        if listener.start.elapsed() >= timeout {
            return listener.give_up(timeout);
        }
    }
    let status = wait(child, timeout.saturating_sub(listener.start.elapsed()).max(Duration::from_secs(2)))?;
    let output = String::from_utf8_lossy(&listener.output).into_owned();
    Ok(Session { output, status, first_prompt: listener.first_prompt })
}

/// The side that hears and answers.
struct Listener {
    start: Instant,
    output: Vec<u8>,
    prompts: Prompts,
    lines: std::vec::IntoIter<String>,
    keys: Sender<String>,
    first_prompt: Option<Duration>,
    show: bool,
}

impl Listener {
    fn new(script: &str, keys: Sender<String>, show: bool) -> Self {
        let lines = typed(script).into_iter();
        let (output, prompts) = (Vec::new(), Prompts::new());
        Self { start: Instant::now(), output, prompts, lines, keys, first_prompt: None, show }
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<()> {
        // A serial line ends its lines as a teletype wants them.
        let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
        let bytes = bytes.as_slice();
        if self.show {
            // Nobody may be listening to us any more; the session goes on.
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(bytes).and_then(|()| out.flush());
        }
        self.output.extend_from_slice(bytes);
        if self.output.len() > MOST_OUTPUT {
            bail!("the kernel has printed more than {} MiB", MOST_OUTPUT >> 20);
        }
        for _ in 0..self.prompts.feed(bytes) {
            self.first_prompt.get_or_insert(self.start.elapsed());
            let line = self.lines.next().context("the kernel asks for more after the script's end: it did not halt")?;
            // A machine that has gone shows itself by the end of its output.
            let _ = self.keys.send(line);
        }
        Ok(())
    }

    fn give_up(&self, timeout: Duration) -> Result<Session> {
        let text = String::from_utf8_lossy(&self.output);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        let typed = if self.first_prompt.is_none() { ", no prompt was seen" } else { "" };
        bail!("timeout: not halted after {} s{typed}; the last output was\n{last}", timeout.as_secs())
    }
}

/// Reads in a thread of its own; the channel closes at the end.
fn read(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Writes in a thread of its own, until the channel closes or the reader is gone.
fn write(mut to: impl Write + Send + 'static) -> Sender<String> {
    let (sender, receiver) = channel::<String>();
    thread::spawn(move || {
        for line in receiver {
            if to.write_all(line.as_bytes()).and_then(|()| to.flush()).is_err() {
                break;
            }
        }
    });
    sender
}

/// Waits for a child that has closed its output, which should not take long.
fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    bail!("timeout: the machine has closed its output, but does not end")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A shell plays the machine.
    fn machine(program: &str, script: &str, timeout: Duration) -> Result<Session> {
        let mut command = Command::new("sh");
        command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        run(command.spawn()?, script, timeout, false)
    }

    const ECHO: &str =
        "printf '> '; while read line; do echo \"$line\"; [ \"$line\" = halt ] && exit 33; printf '> '; done";
    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_line_is_typed_after_each_prompt() {
        let session = machine(ECHO, "# nothing\n\n one \ntwo\nhalt\n", SOON).unwrap();
        assert_eq!(session.output, "> one\n> two\n> halt\n");
        assert_eq!(session.status.code(), Some(33));
        assert!(session.first_prompt.is_some());
    }

    #[test]
    fn a_script_without_halt_is_halted() {
        assert_eq!(machine(ECHO, "one", SOON).unwrap().output, "> one\n> halt\n");
    }

    #[test]
    fn nothing_is_typed_without_a_prompt() {
        let session = machine("echo hello; exit 3", "one", SOON).unwrap();
        assert_eq!((session.output.as_str(), session.status.code()), ("hello\n", Some(3)));
        assert_eq!(session.first_prompt, None);
    }

    #[test]
    fn a_machine_that_does_nothing_is_given_up() {
        let message = machine("echo here; exec sleep 100", "", Duration::from_millis(300)).unwrap_err().to_string();
        assert!(message.starts_with("timeout: ") && message.ends_with("no prompt was seen; the last output was\nhere"));
    }

    #[test]
    fn a_machine_that_prints_for_ever_is_given_up() {
        let message = machine("exec yes", "", Duration::from_millis(300)).unwrap_err().to_string();
        assert!(message.starts_with("timeout: ") || message.contains("MiB"), "{message}");
    }

    #[test]
    fn a_machine_that_does_not_halt_when_told_is_an_error() {
        let program = "printf '> '; while read line; do printf '\\n> '; done";
        assert!(machine(program, "one", SOON).unwrap_err().to_string().contains("did not halt"));
    }

    #[test]
    fn a_machine_that_vanishes_is_no_panic() {
        let session = machine("printf '> '; kill -9 $$", &"x".repeat(1 << 20), SOON).unwrap();
        assert_eq!(session.status.code(), None);
    }

    #[test]
    fn a_machine_that_reads_nothing_is_given_up() {
        let program = "printf '> '; exec sleep 100";
        assert!(machine(program, &"x".repeat(1 << 20), Duration::from_millis(300)).is_err());
    }

    #[test]
    fn long_lines_arrive_whole() {
        let line = "x".repeat(100_000);
        assert_eq!(machine(ECHO, &line, SOON).unwrap().output, format!("> {line}\n> halt\n"));
    }

    #[test]
    fn garbage_is_text_all_the_same() {
        let session = machine("printf '\\377\\000\\r\\n> '; read line; exit 1", "one", SOON).unwrap();
        assert_eq!(session.output, "\u{fffd}\0\n> ");
    }
}
