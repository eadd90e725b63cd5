//! The ELF file inside a compressed kernel image.
//!
//! QEMU boots it by its PVH note at once; the image as packaged would first decompress itself, for nine seconds of
//! emulation, and choose a random address.
//!
//! Source: Documentation/x86/boot.rst ("The Real-Mode Kernel Header").

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::command::output;

/// Fields of the header: how many sectors of 512 bytes follow the first before the protected-mode part, and where in
/// that part the compressed kernel is.
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
/// What a header that says 0 means.
const DEFAULT_SETUP_SECTORS: usize = 4;

const XZ: &[u8] = b"\xfd7zXZ\0";
const ELF: &[u8] = b"\x7fELF";

/// Writes the kernel of `image` to `to`.
///
/// # Errors
///
/// If the image is not one that is compressed by xz, as Debian's are, or files cannot be read or written.
pub(super) fn extract(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| image.display().to_string())?;
    let named = || format!("{} is no kernel image compressed by xz", image.display());
    let compressed = to.with_extension("xz");
    fs::write(&compressed, payload(&bytes).with_context(named)?).with_context(|| compressed.display().to_string())?;
    // The length of what was compressed follows the stream: not to be taken for a second one.
    let kernel = output(Command::new("xz").args(["-d", "-c", "--single-stream"]).arg(&compressed))?;
    if !kernel.starts_with(ELF) {
        bail!("what {} holds is no ELF file", image.display());
    }
    fs::write(to, kernel).with_context(|| to.display().to_string())?;
    fs::remove_file(&compressed).with_context(|| compressed.display().to_string())
}

/// The compressed kernel in an image.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let sectors = match *image.get(SETUP_SECTORS)? {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + word(image, PAYLOAD_OFFSET)?;
    let payload = image.get(start..start.checked_add(word(image, PAYLOAD_LENGTH)?)?)?;
    payload.starts_with(XZ).then_some(payload)
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*word)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One setup sector, then 16 bytes, then the payload.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR + 16];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH] = u8::try_from(payload.len()).unwrap();
        image.extend(payload);
        image.extend([0xee; 9]);
        image
    }

    #[test]
    fn the_payload_is_found_by_the_header() {
        let compressed = [XZ, b"stream"].concat();
        assert_eq!(payload(&image(&compressed)), Some(&compressed[..]));
    }

    #[test]
    fn another_compression_is_none() {
        assert_eq!(payload(&image(b"\x28\xb5\x2f\xfdzstd")), None);
    }

    #[test]
    fn a_cut_image_is_none() {
        let image = image(&[XZ, b"stream"].concat());
        for length in [0, SETUP_SECTORS, PAYLOAD_LENGTH + 3, 2 * SECTOR + 20] {
            assert_eq!(payload(&image[..length]), None, "{length}");
        }
    }
}
