//! What takes longer than a moment says what it is.
//!
//! On a terminal, a line that counts and goes away; elsewhere one line, and only if it takes longer than a second.

use crate::status::say;
use host_process::control::Progress as Placing;
use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);
/// On a terminal.
const MOMENT: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(100);

/// Says `text` if the value lives for long.
#[derive(Debug)]
pub(crate) struct Progress {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub(crate) fn new(text: String, placing: Option<Arc<Placing>>) -> Self {
        let (done, wait) = channel();
        let thread = std::thread::spawn(move || {
            if stderr().is_terminal() { count(&text, placing.as_deref(), &wait) } else { once(&text, &wait) }
        });
        Self { done: Some(done), thread: Some(thread) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.done.take());
        // What comes next is not to be mixed with the line that goes away.
        self.thread.take().map(JoinHandle::join);
    }
}

fn is_over(wait: &Receiver<()>, time: Duration) -> bool {
    wait.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
}

fn once(text: &str, wait: &Receiver<()>) {
    if !is_over(wait, PATIENCE) {
        say(&format!("{text} …"));
    }
}

/// Writes a line again and again, and wipes it at the end. If standard error is closed, nobody is there to be told.
fn count(text: &str, placing: Option<&Placing>, wait: &Receiver<()>) {
    if is_over(wait, MOMENT) {
        return;
    }
    loop {
        let number = |n: &std::sync::atomic::AtomicUsize| n.load(Ordering::Relaxed);
        let (placed, wanted) = placing.map_or((0, 0), |placing| (number(&placing.placed), number(&placing.wanted)));
        let share = if wanted == 0 { String::new() } else { format!(": {placed} of {wanted} functions") };
        let _ = write!(stderr(), "\r\x1b[Kkprobe: {text}{share} …");
        if is_over(wait, STEP) {
            let _ = write!(stderr(), "\r\x1b[K");
            return;
        }
    }
}
