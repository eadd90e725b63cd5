//! Whether the running kernel can serve as an oracle.

use std::{
    fs::{OpenOptions, read_to_string},
    path::{Path, PathBuf},
};

/// The oldest Linux whose rules are the ones we follow: it limits a record's size.
const OLDEST: (u32, u32) = (6, 18);

/// The mounted tracefs, or why it cannot be used.
pub(crate) fn find() -> Result<PathBuf, String> {
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&release).is_none_or(|version| version < OLDEST) {
        return Err(format!("Linux {} is older than {}.{}", release.trim(), OLDEST.0, OLDEST.1));
    }
    let candidates = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let found = candidates.iter().map(Path::new).find(|path| path.join("uprobe_events").exists());
    let tracefs = found.ok_or("no tracefs with uprobe_events is mounted")?;
    let writable = OpenOptions::new().append(true).open(tracefs.join("uprobe_events"));
    writable.map(|_| tracefs.into()).map_err(|error| format!("uprobe_events cannot be written: {error}"))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
