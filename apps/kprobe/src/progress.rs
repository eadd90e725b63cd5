//! What takes longer than a second says what it is.

use crate::status::say;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);

/// Says `text` if the value lives for more than a second.
#[derive(Debug)]
pub(crate) struct Progress {
    _done: Sender<()>,
}

impl Progress {
    pub(crate) fn new(text: String) -> Self {
        let (done, wait): (Sender<()>, Receiver<()>) = channel();
        std::thread::spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                say(&text);
            }
        });
        Self { _done: done }
    }
}
