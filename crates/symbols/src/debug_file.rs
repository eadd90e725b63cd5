//! Symbols that distributions ship in a file of their own.
//!
//! A stripped object says where its debug file is in two ways (GDB manual, "Debugging Information
//! in Separate Files"): by its build id, under the system's debug directory, and by a name and
//! checksum in `.gnu_debuglink`, beside it, in `.debug` beside it, or under the debug directory.

use crate::image::{Image, sections_of};
use crate::reader::{self, Part};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The debug directory that distributions agree on.
const ROOT: &str = "/usr/lib/debug";

/// The debug file's bytes, if `image` (read from `path`) has no full symbol table and its debug
/// file is installed and is its own.
pub(crate) fn read(image: &Image, path: &Path) -> Option<Arc<Vec<u8>>> {
    if image.section(".symtab").is_some() {
        return None;
    }
    by_build_id(image).or_else(|| by_link(image, path)).map(Arc::new)
}

fn by_build_id(image: &Image) -> Option<Vec<u8>> {
    let id = image.build_id.as_deref()?;
    let (first, rest) = id.split_first()?;
    let mut name = format!("{first:02x}/");
    for byte in rest {
        let _ = write!(name, "{byte:02x}");
    }
    let bytes = reader::read(&Path::new(ROOT).join(".build-id").join(name + ".debug"), Part::Symbols).ok()?;
    has_build_id(&bytes, id).then_some(bytes)
}

fn by_link(image: &Image, path: &Path) -> Option<Vec<u8>> {
    let link = image.section_bytes(image.section(".gnu_debuglink")?)?;
    let len = link.iter().position(|&b| b == 0)?;
    let name = core::str::from_utf8(&link[..len]).ok().filter(|n| !n.contains('/') && !n.is_empty())?;
    let sum_at = (len + 4) & !3;
    let sum = u32::from_le_bytes(link.get(sum_at..sum_at + 4)?.try_into().ok()?);
    let path = std::fs::canonicalize(path).ok()?;
    let folder = path.parent()?;
    let mut places: Vec<PathBuf> = vec![folder.join(name), folder.join(".debug").join(name)];
    places.extend(folder.strip_prefix("/").ok().map(|f| Path::new(ROOT).join(f).join(name)));
    let files = places.iter().filter(|p| **p != path && p.is_file());
    files.filter_map(|p| std::fs::read(p).ok()).find(|bytes| crc32(bytes) == sum)
}

/// Whether the file's build id note, which all debug files keep, says `id`.
fn has_build_id(bytes: &[u8], id: &[u8]) -> bool {
    let sections = sections_of(bytes);
    let note = sections.iter().find(|s| s.name == ".note.gnu.build-id");
    let start = note.and_then(|s| usize::try_from(s.offset).ok());
    start.and_then(|s| bytes.get(s.checked_add(16)?..)).is_some_and(|desc| desc.starts_with(id))
}

/// The checksum of `.gnu_debuglink`: CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = (value >> 1) ^ (0xedb8_8320 & (value & 1).wrapping_neg());
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &b| (crc >> 8) ^ TABLE[((crc ^ u32::from(b)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_zlibs() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
