//! What the numbers were measured on.

use std::process::Command;

/// A machine, as far as it explains numbers.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The processor's model.
    pub(crate) processor: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The day, as `YYYY-MM-DD`.
    pub(crate) date: String,
    /// Where the measured program stayed.
    pub(crate) pinned: String,
}

/// This machine.
pub(crate) fn describe(cpu: Option<usize>) -> Machine {
    let unknown = || "unknown".to_owned();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    let date = Command::new("date").args(["-u", "+%F"]).output().ok().filter(|output| output.status.success());
    Machine {
        processor: field(&info, "model name").unwrap_or_else(unknown),
        kernel: release.map_or_else(unknown, |text| text.trim().to_owned()),
        date: date.map_or_else(unknown, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        pinned: cpu.map_or_else(|| "not pinned".to_owned(), |cpu| format!("pinned to CPU {cpu}")),
    }
}

/// The last processor that this process may use: the first ones serve interrupts, and the tool runs on another one.
pub(crate) fn last_cpu() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    last_of_list(&field(&status, "Cpus_allowed_list")?)
}

fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// The last of `0-3,7`.
fn last_of_list(list: &str) -> Option<usize> {
    list.rsplit([',', '-']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_processor_of_a_list_is_found() {
        assert_eq!(["0", "0-1", "0-3,7", "1,4-6"].map(last_of_list), [0, 1, 7, 6].map(Some));
        assert_eq!(last_of_list(""), None);
    }
}
