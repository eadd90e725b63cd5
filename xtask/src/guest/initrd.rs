//! The guest's files: an archive that the kernel unpacks into its first file system.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst (the `newc` format).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::sources;

const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const END: &str = "TRAILER!!!";

/// Writes the archive: busybox, the module, and the script that loads it.
///
/// # Errors
///
/// If a file cannot be read or written.
pub(super) fn write(to: &Path, busybox: &Path, module: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let archive = archive(&[
        ("bin", FOLDER, &[]),
        ("bin/busybox", EXECUTABLE, &read(busybox)?),
        ("proc", FOLDER, &[]),
        ("probe_cost.ko", FILE, &read(module)?),
        ("init", EXECUTABLE, &read(&sources().join("init"))?),
    ])?;
    fs::write(to, archive).with_context(|| to.display().to_string())
}

fn archive(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, (name, mode, content)) in (1..).zip(files) {
        append(&mut archive, number, name, *mode, content)?;
    }
    append(&mut archive, 0, END, 0, &[])?;
    Ok(archive)
}

fn append(archive: &mut Vec<u8>, number: u32, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let size = u32::try_from(content.len()).with_context(|| format!("{name} is too big"))?;
    // The terminating zero counts.
    let name_size = u32::try_from(name.len() + 1).context("a name too long")?;
    // Inode, mode, user, group, links, time, size, two device numbers in two parts each, size of the name, no checksum.
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    archive.extend(b"070701");
    archive.extend(header.bytes());
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_header_name_and_content_each_padded() {
        let archive = archive(&[("init", EXECUTABLE, b"hello")]).unwrap();
        let header = "070701\
            00000001000081ed0000000000000000000000010000000000000005\
            0000000000000000000000000000000000000005\
            00000000";
        let file = [header.as_bytes(), b"init\0\0", b"hello\0\0\0"].concat();
        assert_eq!(String::from_utf8_lossy(&archive[..file.len()]), String::from_utf8_lossy(&file));
        assert!(archive[file.len()..].starts_with(b"070701"));
    }

    #[test]
    fn the_end_is_marked() {
        let archive = archive(&[]).unwrap();
        assert!(archive.ends_with(b"TRAILER!!!\0\0\0\0"), "{archive:?}");
        assert_eq!(archive.len() % 4, 0);
    }
}
