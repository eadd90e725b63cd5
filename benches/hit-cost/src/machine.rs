//! What the numbers were measured on, and with.

use serde_json::{Value, json};

use crate::command::first_line;

/// A machine, and versions, as far as they explain numbers.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The processor's model.
    pub(crate) processor: String,
    /// How many processors there are.
    pub(crate) processors: usize,
    /// Whether it is a virtual machine's processor: traps may go by way of its host.
    pub(crate) is_virtual: bool,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The day, as `YYYY-MM-DD`.
    pub(crate) date: String,
    /// Where the measured program stayed.
    pub(crate) pinned: String,
    /// How busy the machine was: the load averages when the run began.
    pub(crate) load: String,
    /// Programs and their versions.
    pub(crate) versions: Vec<(String, String)>,
}

/// This machine, with the versions of our tool and of peers.
pub(crate) fn describe(cpu: Option<usize>, versions: Vec<(String, String)>) -> Machine {
    let unknown = || "unknown".to_owned();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let read = |path: &str| std::fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned());
    let compilers = [("rustc", "rustc"), ("C compiler", "cc")];
    let compilers = compilers.map(|(name, program)| (name.to_owned(), first_line(program, &["--version"])));
    let compilers = compilers.into_iter().filter_map(|(name, version)| Some((name, version?)));
    Machine {
        processor: field(&info, "model name").unwrap_or_else(unknown),
        processors: info.lines().filter(|line| line.starts_with("processor")).count(),
        is_virtual: field(&info, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        kernel: read("/proc/sys/kernel/osrelease"),
        date: first_line("date", &["-u", "+%F"]).unwrap_or_else(unknown),
        pinned: cpu.map_or_else(|| "not pinned".to_owned(), |cpu| format!("pinned to CPU {cpu}")),
        load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        versions: compilers.chain(versions).collect(),
    }
}

impl Machine {
    /// In one line.
    pub(crate) fn line(&self) -> String {
        let Self { processor, processors, kernel, date, load, .. } = self;
        let kind = if self.is_virtual { ", virtual" } else { "" };
        format!("{processor} ({processors} processors{kind}), Linux {kernel}, {date}, load {load}")
    }

    pub(crate) fn json(&self) -> Value {
        let versions: serde_json::Map<_, _> =
            self.versions.iter().map(|(name, version)| (name.clone(), version.as_str().into())).collect();
        json!({
            "processor": self.processor, "processors": self.processors, "virtual": self.is_virtual,
            "kernel": self.kernel, "date": self.date, "pinned": self.pinned, "load": self.load, "versions": versions,
        })
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
