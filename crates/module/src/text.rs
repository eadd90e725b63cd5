//! Text of the target's.

use core::fmt::{self, Write as _};

/// Up to `N` bytes that should be text. Shown, what is none becomes `�`, and what moves cursors an escape.
///
/// ```
/// # #[unsafe(no_mangle)]
/// # unsafe extern "C" fn kprobes_comm(out: *mut [u8; 16]) {
/// #     // SAFETY: the module has room for them.
/// #     unsafe { *out = *b"worker\n\xff\0\0\0\0\0\0\0\0" };
/// # }
/// // In a thread with an odd name.
/// let name: module::Text<16> = module::comm();
/// assert_eq!(name.as_bytes(), b"worker\n\xff");
/// assert_eq!(name.to_string(), "worker\\n\u{fffd}");
/// ```
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Text<N> {
    /// The first `used` of these bytes; no more than there are.
    pub(crate) fn new(bytes: [u8; N], used: usize) -> Self {
        Self { bytes, used: used.min(N) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                match character.is_control() {
                    true => write!(f, "{}", character.escape_default())?,
                    false => f.write_char(character)?,
                }
            }
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
