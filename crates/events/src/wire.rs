//! How an event travels from the handler to the reader: a tag of 48 bits and words, as a ring takes them.
//!
//! The tag says which event it is and whether a function returned. Eight words of header follow, then the payload
//! ([`crate::record`]), the last word filled up with zeros.

#[cfg(feature = "text")]
use alloc::vec::Vec;

/// Words before the payload.
const HEADER_WORDS: usize = 8;
/// Bits of the tag that hold the event's number.
const ID_BITS: u32 = 32;
/// In the tag: a function returned.
const RETURN: u64 = 1 << ID_BITS;

/// What is known of an event besides its arguments.
///
/// ```
/// use events::wire::Header;
///
/// let header = Header { event: 7, is_return: true, address: 0x401000, ..Header::default() };
/// let tag = header.tag();
/// assert_eq!((tag & 0xffff_ffff, tag >> 32), (7, 1));
/// // Eight words of header, and the payload in one, filled up.
/// let words: Vec<u64> = header.words(&[1, 2, 3]).collect();
/// assert_eq!((words.len(), words[3], words[8]), (9, 0x401000, 0x03_02_01));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Which event: the number that its probe bears.
    pub event: u32,
    /// A function returned, else a probe was hit.
    pub is_return: bool,
    /// Time stamp, in the host's units.
    pub time: u64,
    /// The thread.
    pub thread: u32,
    /// The processor.
    pub cpu: u32,
    /// The process.
    pub process: u64,
    /// Address of the probe; of the function, if it returned.
    pub address: u64,
    /// Where a function returned to.
    pub caller: u64,
    /// The thread's name, padded with zeros.
    pub name: [u64; 2],
}

impl Header {
    /// The tag.
    #[must_use]
    pub fn tag(&self) -> u64 {
        u64::from(self.event) | if self.is_return { RETURN } else { 0 }
    }

    /// The words.
    pub fn words<'a>(&self, payload: &'a [u8]) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        let who = u64::from(self.thread) | u64::from(self.cpu) << 32;
        let length = payload.len() as u64;
        let [name, name_end] = self.name;
        let words = [self.time, who, self.process, self.address, self.caller, length, name, name_end];
        Words { words, next: 0, payload }
    }

    /// Reads what [`tag`](Self::tag) and [`words`](Self::words) gave. `None` for words that are no event's.
    ///
    /// ```
    /// use events::wire::Header;
    ///
    /// let name = [u64::from_le_bytes(*b"demo\0\0\0\0"), 0];
    /// let header = Header { event: 7, thread: 4712, name, ..Header::default() };
    /// let words: Vec<u64> = header.words(&[1, 2, 3]).collect();
    ///
    /// let (read, payload) = Header::decode(header.tag(), &words).ok_or("no event")?;
    /// assert_eq!((read, payload), (header, vec![1, 2, 3]));
    /// assert_eq!(read.name_bytes(), b"demo");
    /// assert_eq!(Header::decode(0, &words[..7]), None);
    /// # Ok::<(), &str>(())
    /// ```
    #[cfg(feature = "text")]
    #[must_use]
    pub fn decode(tag: u64, words: &[u64]) -> Option<(Self, Vec<u8>)> {
        let (header, payload) = words.split_at_checked(HEADER_WORDS)?;
        let &[time, who, process, address, caller, length, name, name_end] = header else { return None };
        let mut bytes: Vec<u8> = payload.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let header = Self {
            event: (tag & (RETURN - 1)) as u32,
            is_return: tag & RETURN != 0,
            time,
            thread: (who & 0xffff_ffff) as u32,
            cpu: (who >> 32) as u32,
            process,
            address,
            caller,
            name: [name, name_end],
        };
        Some((header, bytes))
    }

    /// The thread's name.
    #[cfg(feature = "text")]
    #[must_use]
    pub fn name_bytes(&self) -> Vec<u8> {
        self.name.iter().flat_map(|w| w.to_le_bytes()).take_while(|&b| b != 0).collect()
    }
}

/// Header, then payload.
struct Words<'a> {
    words: [u64; HEADER_WORDS],
    next: usize,
    payload: &'a [u8],
}

impl Iterator for Words<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if let Some(&word) = self.words.get(self.next) {
            self.next += 1;
            return Some(word);
        }
        if self.payload.is_empty() {
            return None;
        }
        let (word, rest) = self.payload.split_at(self.payload.len().min(8));
        self.payload = rest;
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(word) {
            *to = *from;
        }
        Some(u64::from_le_bytes(bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = HEADER_WORDS.saturating_sub(self.next) + self.payload.len().div_ceil(8);
        (len, Some(len))
    }
}

impl ExactSizeIterator for Words<'_> {}

#[cfg(all(test, feature = "text"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let header = Header {
            event: 7,
            is_return: true,
            time: 1,
            thread: 2,
            cpu: 3,
            process: 4,
            address: u64::MAX,
            caller: 5,
            name: [u64::from_le_bytes(*b"a name\0\0"), 0],
        };
        for length in 0..20 {
            let payload: Vec<u8> = (1..=length).collect();
            let words: Vec<u64> = header.words(&payload).collect();
            assert_eq!(words.len(), header.words(&payload).len());
            assert_eq!(Header::decode(header.tag(), &words), Some((header, payload)));
        }
        assert_eq!(header.name_bytes(), b"a name");
    }

    #[test]
    fn short_words_are_no_event() {
        assert_eq!(Header::decode(0, &[0; HEADER_WORDS - 1]), None);
        let lying = [0, 0, 0, 0, 0, u64::MAX, 0, 0, 1];
        assert_eq!(Header::decode(0, &lying).map(|(_, payload)| payload.len()), Some(8));
    }
}
