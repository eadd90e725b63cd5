//! A log's texts: the ring they wait in, and the one piece that is on its way out.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU64, AtomicUsize};

use sync::{Ring, RingReader};

use crate::arch::interrupts;
use crate::lock::IrqLock;

/// Bytes of the longest text that is never cut.
pub(crate) const PIECE: usize = 512;
const PIECE_WORDS: usize = PIECE / 8;

/// Where pieces go.
pub(crate) type Out<'a> = &'a mut dyn FnMut(&[u8]);

/// A log. `WORDS` is a power of two.
pub(crate) struct Buffer<const WORDS: usize> {
    data: [AtomicU64; WORDS],
    head: AtomicU64,
    tail: AtomicU64,
    /// Pieces that did not fit, and that nobody has been told of yet.
    lost: AtomicU64,
    /// Held by who takes a piece out.
    taking: IrqLock<()>,
    /// The piece that is on its way out, and how many bytes it has; 0 for none.
    piece: [AtomicU64; PIECE_WORDS],
    piece_bytes: AtomicUsize,
}

impl<const WORDS: usize> Buffer<WORDS> {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            data: [const { AtomicU64::new(0) }; WORDS],
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            taking: IrqLock::new(()),
            piece: [const { AtomicU64::new(0) }; PIECE_WORDS],
            piece_bytes: AtomicUsize::new(0),
        }
    }

    fn ring(&self) -> Ring<'_> {
        Ring::new(&self.head, &self.tail, &self.data)
    }

    /// Adds a text, in pieces. From anywhere.
    pub(crate) fn write(&self, text: &[u8]) {
        for piece in text.chunks(PIECE) {
            // Copied before there is a place in the ring: should `text` not be readable, the ring has no hole.
            let mut words = [0; PIECE_WORDS];
            for (word, bytes) in words.iter_mut().zip(piece.chunks(8)) {
                let mut whole = [0; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(whole);
            }
            let words = words[..piece.len().div_ceil(8)].iter().copied();
            // A thread that lost its processor in there would keep back all that is written after it.
            if !interrupts::without(|| self.ring().push(piece.len() as u64, words)) {
                self.lost.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether there is something to take out, and whether the ring is half full.
    pub(crate) fn waits(&self) -> (bool, bool) {
        let (used, capacity) = self.ring().fill();
        (used > 0 || self.lost.load(Relaxed) > 0, used > capacity / 2)
    }

    /// Takes out what there is when it is called: others may write as fast as we print.
    pub(crate) fn drain(&self, out: Out<'_>) {
        let mut left = self.ring().fill().0;
        while left > 0 {
            let _taking = self.taking.lock();
            let Some(words) = self.take() else { break };
            self.give(out);
            left = left.saturating_sub(words);
        }
        match self.lost.swap(0, Relaxed) {
            0 => {}
            lost => out(alloc::format!("log: {lost} texts were lost: the log was full\n").as_bytes()),
        }
    }

    /// Takes out all that is left, without waiting for whoever was just taking: the other processors have been stopped,
    /// and what this one did before never goes on. Gives how many pieces were lost.
    pub(crate) fn drain_in_panic(&self, out: Out<'_>) -> u64 {
        if self.piece_bytes.load(Relaxed) > 0 {
            self.give(out);
        }
        while self.take().is_some() {
            self.give(out);
        }
        self.lost.load(Relaxed)
    }

    /// Takes the oldest piece from the ring; how many words it had there.
    fn take(&self) -> Option<u64> {
        let mut places = self.piece.iter();
        let mut words = 1;
        let bytes = RingReader::new(self.ring()).pop(|word| {
            words += 1;
            if let Some(place) = places.next() {
                place.store(word, Relaxed);
            }
        })?;
        self.piece_bytes.store((bytes as usize).min(PIECE), Relaxed);
        Some(words)
    }

    /// Gives the piece that was taken to `out`.
    fn give(&self, out: Out<'_>) {
        let mut text = [0; PIECE];
        for (bytes, word) in text.chunks_exact_mut(8).zip(&self.piece) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        out(&text[..self.piece_bytes.load(Relaxed).min(PIECE)]);
        self.piece_bytes.store(0, Relaxed);
    }
}
