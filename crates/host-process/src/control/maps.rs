//! The target's address space.

use super::{HostError, Result};
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// First address.
    pub(crate) start: u64,
    /// One past the last address.
    pub(crate) end: u64,
    /// Readable, writable, executable, shared.
    pub(crate) permissions: MMPermissions,
    /// Offset in the file.
    pub(crate) offset: u64,
    /// Device and inode; zero for memory without a file.
    pub(crate) file: (i32, i32, u64),
    /// What is mapped.
    pub(crate) path: MMapPath,
}

impl Mapping {
    /// The mapped file's path, without the mark of a deleted file.
    #[must_use]
    pub(crate) fn file_path(&self) -> Option<String> {
        let MMapPath::Path(path) = &self.path else { return None };
        let path = path.to_string_lossy();
        Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
    }

    /// Whether its memory can be executed.
    #[must_use]
    pub(crate) fn is_executable(&self) -> bool {
        self.permissions.contains(MMPermissions::EXECUTE)
    }

    /// Whether `address` is in it.
    #[must_use]
    pub(crate) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

impl From<MemoryMap> for Mapping {
    fn from(m: MemoryMap) -> Self {
        Self {
            start: m.address.0,
            end: m.address.1,
            permissions: m.perms,
            offset: m.offset,
            file: (m.dev.0, m.dev.1, m.inode),
            path: m.pathname,
        }
    }
}

/// All mappings of `pid`, in the order of their addresses.
///
/// # Errors
///
/// When the process has gone or may not be looked at.
pub(crate) fn mappings(pid: i32) -> Result<Vec<Mapping>> {
    let maps = Process::new_with_root(super::process::folder(pid)).and_then(|p| p.maps());
    let maps = maps.map_err(|e| process_error(pid, "read the mappings", e))?;
    Ok(maps.into_iter().map(Mapping::from).collect())
}

/// Whether `pid` maps the file with this device and inode. A number that a target tells us is not believed before: it
/// may be another process's, in another namespace or by intent.
pub(crate) fn has_file(pid: i32, file: (i32, i32, u64)) -> bool {
    mappings(pid).is_ok_and(|maps| maps.iter().any(|m| m.file == file))
}

/// What an error of `/proc` means.
pub(crate) fn process_error(pid: i32, what: &str, error: procfs::ProcError) -> HostError {
    match error {
        procfs::ProcError::NotFound(_) => HostError::NoProcess { pid },
        procfs::ProcError::PermissionDenied(_) => {
            HostError::NotPermitted { pid, why: format!("/proc/{pid} is closed to this user") }
        }
        other => HostError::Unexpected { pid, what: format!("cannot {what}: {other}") },
    }
}

/// How far a slot may be from its instruction, so that relocated operands still reach: well under 2 GiB, since an
/// operand may lie on the other side.
const REACH: u64 = 1 << 30;
/// Room left above the program for its heap, and below the stack for its growth.
const GROWTH: u64 = 256 << 20;
/// Nothing is mapped below: `vm.mmap_min_addr`'s usual value.
pub(crate) const LOWEST: u64 = 0x10000;
pub(crate) const HIGHEST: u64 = 0x7fff_ffff_f000;
const PAGE: u64 = 0x1000;

/// A free place of `size` bytes, as near to `address` as there is one within reach, that is in nobody's way: not where
/// the heap grows to, and not where the stack does.
#[must_use]
pub(crate) fn gap_near(maps: &[Mapping], address: u64, size: u64) -> Option<u64> {
    let mut best: Option<u64> = None;
    for (low, high) in gaps(maps) {
        if high.saturating_sub(low) < size + 2 * PAGE {
            continue;
        }
        let nearest = address.clamp(low + PAGE, high - size - PAGE) & !(PAGE - 1);
        let distance = |at: u64| at.abs_diff(address);
        if distance(nearest) < REACH && best.is_none_or(|b| distance(nearest) < distance(b)) {
            best = Some(nearest);
        }
    }
    best
}

/// Whether nothing is mapped in a range, and nobody grows into it.
#[must_use]
pub(crate) fn is_free(maps: &[Mapping], range: &core::ops::Range<u64>) -> bool {
    // The first and the last page of a gap stay free: they are somebody's guards.
    let holds = |&(low, high): &(u64, u64)| low + PAGE <= range.start && range.end + PAGE <= high;
    gaps(maps).iter().any(holds)
}

/// Free ranges, less the room that others grow into.
fn gaps(maps: &[Mapping]) -> Vec<(u64, u64)> {
    let mut free = Vec::new();
    let mut low = LOWEST;
    for (i, map) in maps.iter().enumerate().filter(|(_, m)| m.start < HIGHEST) {
        let high = if map.path == MMapPath::Stack { map.start.saturating_sub(GROWTH) } else { map.start };
        free.push((low, high));
        low = if heap_follows(maps, i) { map.end.saturating_add(GROWTH) } else { map.end };
    }
    free.push((low, HIGHEST));
    free
}

/// Whether the heap is, or will be, right above mapping `i`: it is the heap, or the last one of the first file (the
/// program itself, whose heap does not exist before its first `brk`).
fn heap_follows(maps: &[Mapping], i: usize) -> bool {
    let is_heap = |m: &Mapping| m.path == MMapPath::Heap;
    let Some(map) = maps.get(i) else { return false };
    if is_heap(map) {
        return true;
    }
    let next_is_close = maps.get(i + 1).is_some_and(|n| n.start.saturating_sub(map.end) < GROWTH);
    !maps.iter().any(is_heap) && !next_is_close && is_of_file(maps, i)
}

/// Whether mapping `i` is a file's, or what is zero at first behind one: areas of our own are not, and nothing grows behind
/// them.
fn is_of_file(maps: &[Mapping], i: usize) -> bool {
    let before = maps.get(..=i).unwrap_or_default();
    let mut start = before.last().map_or(0, |map| map.end);
    let adjacent = before.iter().rev().take_while(|map| core::mem::replace(&mut start, map.start) == map.end);
    adjacent.into_iter().any(|map| map.file.2 != 0 || matches!(map.path, MMapPath::Path(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(start: u64, end: u64, path: MMapPath) -> Mapping {
        Mapping { start, end, permissions: MMPermissions::READ, offset: 0, file: (0, 0, 0), path }
    }

    fn file(start: u64, end: u64) -> Mapping {
        map(start, end, MMapPath::Path("/bin/x".into()))
    }

    #[test]
    fn a_gap_is_near_and_not_where_the_heap_grows() {
        let maps = [
            file(0x5555_0000_0000, 0x5555_0010_0000),
            map(0x5555_0010_0000, 0x5555_0020_0000, MMapPath::Heap),
            file(0x7fff_0000_0000, 0x7fff_0010_0000),
        ];
        let gap = gap_near(&maps, 0x5555_0000_8000, 0x10000).unwrap();
        assert!(gap + 0x10000 < 0x5555_0000_0000, "{gap:#x} is below the program");
        let gap = gap_near(&maps, 0x7fff_0000_8000, 0x10000).unwrap();
        assert!(gap.abs_diff(0x7fff_0000_8000) < 0x200_0000, "{gap:#x}");
    }

    #[test]
    fn nothing_grows_behind_an_area_of_our_own() {
        let area = map(0x5554_0000_0000, 0x5554_0010_0000, MMapPath::Anonymous);
        let bss = map(0x5555_0010_0000, 0x5555_0011_0000, MMapPath::Anonymous);
        let maps = [area, file(0x5555_0000_0000, 0x5555_0010_0000), bss];
        assert!(is_free(&maps, &(0x5554_0020_0000..0x5554_0030_0000)));
        assert!(!is_free(&maps, &(0x5555_0020_0000..0x5555_0030_0000)));
    }

    #[test]
    fn a_gap_for_a_program_at_a_low_address_leaves_room_for_the_heap() {
        let maps = [file(0x40_0000, 0x50_0000), map(0x7ffd_0000_0000, 0x7ffd_0010_0000, MMapPath::Stack)];
        let gap = gap_near(&maps, 0x40_1000, 0x4_0000).unwrap();
        assert!(gap + 0x4_0000 <= 0x40_0000 || gap >= 0x50_0000 + GROWTH, "{gap:#x}");
    }

    #[test]
    fn no_gap_within_reach_is_none() {
        let maps = [file(0x1_0000, 0x7fff_ffff_e000)];
        assert_eq!(gap_near(&maps, 0x4000_0000, 0x1000), None);
    }
}
