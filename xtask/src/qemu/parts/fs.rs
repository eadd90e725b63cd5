//! Files.

#[expect(redundant_imports, reason = "the kernel has no prelude with these")]
#[path = "../../../../apps/demo-kernel/src/fs/archive.rs"]
mod archive;
#[path = "../../../../apps/demo-kernel/src/fs/errno.rs"]
mod errno;
#[expect(redundant_imports, reason = "the kernel has no prelude with these")]
#[path = "../../../../apps/demo-kernel/src/fs/tree.rs"]
mod tree;

use std::thread;

use self::errno::Errno;
use self::tree::{TEMPORARY_BYTES, Tree};
use crate::qemu::disk;

/// A disk as the one who packs it makes it.
fn packed(files: &[(&str, &[u8])]) -> &'static [u8] {
    let folder = std::env::temp_dir().join(format!("xtask-parts-{}-{:?}", std::process::id(), thread::current().id()));
    std::fs::create_dir_all(&folder).unwrap();
    let bytes = disk::archive(&folder, files).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    bytes.leak()
}

fn tree() -> Tree {
    let mut tree = Tree::empty();
    let files: &[(&str, &[u8])] = &[("etc/motd", b"hello"), ("etc/deep/er/file", b"x"), ("empty", b"")];
    tree.fill(archive::entries(packed(files)));
    tree
}

fn found(tree: &Tree, path: &str) -> Result<u64, Errno> {
    tree.path_lookup(path).and_then(|inode| tree.inode_stat(inode)).map(|stat| stat.size)
}

#[test]
fn the_kernel_reads_the_disk_that_is_packed() {
    let long = ["a"; 60].join("/");
    let bytes = vec![7; 1500];
    let entries: Vec<_> = archive::entries(packed(&[("boot/symbols", &bytes), (&long, b"")])).collect();
    assert_eq!(entries.len(), 2);
    assert_eq!((entries[0].path.as_str(), entries[0].bytes), ("boot/symbols", bytes.as_slice()));
    assert_eq!((entries[1].path.as_str(), entries[1].bytes.len()), (long.as_str(), 0));
}

#[test]
fn a_damaged_disk_ends_early() {
    let whole = packed(&[("a", &[1; 600]), ("b", &[2; 600])]);
    assert_eq!(archive::entries(&whole[..1024]).count(), 0, "the first file's bytes are cut off");
    assert_eq!(archive::entries(&whole[..512 + 1024 + 600]).count(), 1);
    let mut damaged = whole.to_vec();
    damaged[3] ^= 1;
    assert_eq!(archive::entries(damaged.leak()).count(), 0, "the sum of the first header is wrong");
    assert_eq!(archive::entries(&[]).count(), 0);
}

#[test]
fn paths_lead_to_files() {
    let tree = tree();
    for path in ["/etc/motd", "etc/motd", "//etc/./motd", "/etc/deep/../motd", "/../etc/motd"] {
        assert_eq!(found(&tree, path), Ok(5), "{path}");
    }
    assert_eq!(found(&tree, "/etc"), Ok(2));
    assert_eq!(found(&tree, "/empty"), Ok(0));
    assert_eq!(found(&tree, "/etc/missing"), Err(Errno::NoEntry));
    assert_eq!(found(&tree, "/missing/motd"), Err(Errno::NoEntry));
    assert_eq!(found(&tree, "/etc/motd/x"), Err(Errno::NotDirectory));
}

#[test]
fn a_directory_is_listed_with_what_is_known_of_its_files() {
    let names = |path| -> Result<Vec<_>, _> {
        tree().list(path).map(|list| list.into_iter().map(|(name, stat)| (name, stat.size)).collect())
    };
    let motd = || ("motd".to_owned(), 5);
    assert_eq!(names("/etc"), Ok(vec![("deep".to_owned(), 1), motd()]));
    assert_eq!(names("/etc/motd"), Ok(vec![("/etc/motd".to_owned(), 5)]));
    assert_eq!(names("/nowhere"), Err(Errno::NoEntry));
}

#[test]
fn a_file_of_the_disk_can_be_had_whole() {
    let mut tree = tree();
    assert_eq!(tree.disk_file("etc/motd"), Some(b"hello".as_slice()));
    assert_eq!(tree.disk_file("etc"), None);
    tree.inode_create("/tmp/a").unwrap();
    assert_eq!(tree.disk_file("/tmp/a"), None, "it may change");
}

#[test]
fn files_are_made_below_tmp_only() {
    let mut tree = tree();
    assert!(tree.inode_create("/tmp/a").is_ok());
    assert_eq!(tree.inode_create("/etc/a").err(), Some(Errno::ReadOnly));
    assert_eq!(tree.inode_create("/etc/motd").err(), Some(Errno::ReadOnly));
    assert_eq!(tree.inode_create("/tmp").err(), Some(Errno::IsDirectory));
    assert_eq!(tree.inode_create("/tmp/a/b").err(), Some(Errno::NotDirectory));
    assert_eq!(tree.inode_create("/nowhere/b").err(), Some(Errno::NoEntry));
}

#[test]
fn what_is_written_is_read() {
    let mut tree = tree();
    let file = tree.inode_create("/tmp/a").unwrap();
    assert_eq!(tree.inode_write(file, 2, b"abc"), Ok(3));
    let mut buffer = [9; 8];
    assert_eq!(tree.inode_read(file, 0, &mut buffer), Ok(5));
    assert_eq!(&buffer, b"\0\0abc\x09\x09\x09");
    assert_eq!(tree.inode_read(file, 4, &mut buffer[..1]), Ok(1));
    assert_eq!(tree.inode_read(file, usize::MAX, &mut buffer), Ok(0));
}

#[test]
fn the_area_for_files_is_limited_and_given_back() {
    let mut tree = tree();
    let all = vec![1; TEMPORARY_BYTES];
    let (a, b) = (tree.inode_create("/tmp/a").unwrap(), tree.inode_create("/tmp/b").unwrap());
    assert_eq!(tree.inode_write(a, 0, &all), Ok(TEMPORARY_BYTES));
    assert_eq!(tree.inode_write(b, 0, b"x"), Err(Errno::NoSpace));
    assert_eq!(tree.inode_write(a, usize::MAX, b"x"), Err(Errno::NoSpace));
    assert_eq!(tree.inode_write(a, 0, b"in place"), Ok(8));
    assert_eq!(tree.inode_create("/tmp/a"), Ok(a), "the same file, emptied");
    assert_eq!(tree.inode_write(b, 0, &all), Ok(TEMPORARY_BYTES));
    let more = (0..100).map(|n| tree.inode_create(&format!("/tmp/{n}"))).filter_map(Result::err);
    assert!(more.last() == Some(Errno::NoSpace), "so is the number of files");
}

#[test]
fn errors_have_linux_numbers() {
    assert_eq!(Errno::NoEntry.to_string(), "No such file or directory (-2)");
    assert_eq!(Errno::from_returned(-28), Errno::NoSpace);
    assert_eq!(Errno::from_returned(-4095), Errno::Invalid);
}
