//! The RAM disk: a ustar archive.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// Packs the files below a folder and some made ones, named as the kernel shall see them.
/// The same files give the same bytes: no times, no owners, sorted.
///
/// # Errors
///
/// If a file cannot be read, or has a name that does not fit.
pub(super) fn archive(folder: &Path, made: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    find(folder, &mut files).with_context(|| format!("cannot list {}", folder.display()))?;
    files.sort();
    let mut builder = Builder::new(Vec::new());
    for file in &files {
        let name = file.strip_prefix(folder)?.to_str().with_context(|| format!("{}: no text", file.display()))?;
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        append(&mut builder, name, &bytes)?;
    }
    for (name, bytes) in made {
        append(&mut builder, name, bytes)?;
    }
    Ok(builder.into_inner()?)
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn append(builder: &mut Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(u64::try_from(bytes.len())?);
    // Set here and not by the builder, which would turn to GNU's extension for a long name.
    header.set_path(name).with_context(|| format!("{name} is no name for a RAM disk"))?;
    header.set_cksum();
    builder.append(&header, bytes).with_context(|| format!("cannot pack {name}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn files_and_made_ones_are_packed_under_their_names() {
        let folder = std::env::temp_dir().join(format!("xtask-disk-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("etc")).unwrap();
        std::fs::write(folder.join("etc/motd"), "hello").unwrap();
        std::fs::write(folder.join("empty"), "").unwrap();
        let bytes = archive(&folder, &[("boot/symbols", b"x")]).unwrap();
        assert_eq!(bytes, archive(&folder, &[("boot/symbols", b"x")]).unwrap(), "the same files, the same archive");
        std::fs::remove_dir_all(&folder).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().to_str().unwrap().to_owned(), text));
        }
        let found: Vec<_> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(found, [("empty", ""), ("etc/motd", "hello"), ("boot/symbols", "x")]);
    }

    #[test]
    fn a_name_that_does_not_fit_is_an_error() {
        let mut builder = Builder::new(Vec::new());
        assert!(append(&mut builder, &"x".repeat(300), b"").is_err());
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        assert!(archive(Path::new("no/such/folder"), &[]).unwrap_err().to_string().contains("no/such/folder"));
    }
}
