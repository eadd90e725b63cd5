//! The instructions of a program and its libraries, and which of them can be probed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use host_process::control::{Verdict, View};
use symbols::Object;
use testkit::generate::Random;

use super::workloads::Workload;

/// An instruction of a file.
#[derive(Clone, Debug)]
pub(super) struct Instruction {
    pub(super) object: Arc<Path>,
    /// Where it is in the file.
    pub(super) offset: u64,
    /// Its text, with the name of its function.
    pub(super) text: Arc<str>,
}

impl Instruction {
    /// The line that defines a probe on it; `id` names the event.
    pub(super) fn definition(&self, id: usize) -> String {
        format!("p:i{id} {}:{:#x}", self.object.display(), self.offset)
    }
}

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) accepted: Vec<Instruction>,
    found: u64,
    objects: usize,
    refused: BTreeMap<String, (u64, String)>,
    planned: BTreeMap<String, u64>,
}

impl Inventory {
    /// Looks at the program and all that it is linked with; with `sample`, at about so many instructions, whole
    /// functions chosen by chance.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub(super) fn of(workload: &Workload, sample: Option<usize>, random: &mut Random) -> Result<Self> {
        let mut inventory = Self::default();
        let objects = linked(&workload.program);
        let share = sample.map(|n| n / objects.len().max(1));
        for object in objects {
            inventory.add(&object, share, random)?;
        }
        Ok(inventory)
    }

    fn add(&mut self, path: &Path, sample: Option<usize>, random: &mut Random) -> Result<()> {
        let object = Object::read(path).with_context(|| path.display().to_string())?;
        let mut view = View::of_file(path).with_context(|| path.display().to_string())?;
        let shared: Arc<Path> = path.into();
        self.objects += 1;
        let mut functions = functions(&object);
        if let Some(wanted) = sample {
            let total: u64 = functions.iter().map(|(start, end)| end - start).sum();
            // An instruction has about four bytes.
            let one_in = (total / 4 / wanted.max(1) as u64).max(1);
            functions.retain(|_| random.one_in(one_in));
        }
        for (start, end) in functions {
            let Some(code) = object.code(start, (end - start) as usize) else { continue };
            for address in isa::x86::boundaries(code, start).starts() {
                let Some(offset) = object.offset_of_vaddr(address) else { continue };
                self.one(&mut view, &shared, offset);
            }
        }
        Ok(())
    }

    fn one(&mut self, view: &mut View, object: &Arc<Path>, offset: u64) {
        self.found += 1;
        let mut instruction = Instruction { object: object.clone(), offset, text: "".into() };
        let Ok(definition) = events::parse(&instruction.definition(0)) else { return };
        match view.check(&definition) {
            Verdict::Placed { how, place, instruction: text, .. } => {
                *self.planned.entry(how).or_default() += 1;
                instruction.text = format!("{place}: {text}").into();
                self.accepted.push(instruction);
            }
            Verdict::Refused(why) => {
                let example = format!("{}:{offset:#x}", object.display());
                self.refused.entry(plain(&why)).or_insert((0, example)).0 += 1;
            }
            // A place of its own is no pattern, and its object is there.
            Verdict::Pending(_) | Verdict::Matched(_) => {}
        }
    }

    /// For the table.
    pub(super) fn figures(&self) -> String {
        let refused: u64 = self.refused.values().map(|(n, _)| n).sum();
        let reasons: Vec<_> = self
            .refused
            .iter()
            .map(|(why, (n, example))| format!("\n      {n} refused: {why} (as {example})"))
            .collect();
        let planned = self.planned.iter().map(|(how, n)| format!("{n} {how}")).collect::<Vec<_>>().join(", ");
        format!(
            "{} objects, {} instructions: {} accepted, {refused} refused; `check` says: {planned}{}",
            self.objects,
            self.found,
            self.accepted.len(),
            reasons.concat()
        )
    }
}

/// A reason without what differs from place to place: addresses, and bytes in parentheses.
fn plain(why: &str) -> String {
    let words = why.split(' ').map(|word| if word.starts_with("0x") { "ADDRESS" } else { word });
    let text = words.collect::<Vec<_>>().join(" ");
    match (text.find(" ("), text.find("): ")) {
        (Some(open), Some(close)) if open < close => format!("{}{}", &text[..open], &text[close + 1..]),
        _ => text,
    }
}

/// The functions of an object: from the tables that the tool takes its bounds from.
fn functions(object: &Object) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for section in object.executable_sections() {
        let mut at = section.start;
        while at < section.end {
            match object.function_bounds(at) {
                Some((start, end)) if end > at => {
                    if start == at {
                        found.push((start, end.min(section.end)));
                    }
                    at = end;
                }
                _ => at += 1,
            }
        }
    }
    found
}

/// A program and what the dynamic linker maps with it, itself included.
fn linked(program: &Path) -> Vec<PathBuf> {
    let mut objects = vec![program.to_owned()];
    if let Ok(output) = Command::new("ldd").arg(program).output() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
        let real = paths.filter_map(|path| Path::new(path).canonicalize().ok()).filter(|path| path != program);
        objects.extend(real);
    }
    objects.dedup();
    objects
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn reasons_of_one_kind_are_one_reason() {
        let one = "the instruction at 0x10 cannot be probed: 0x10 (0f 0b): always raises #UD";
        let other = "the instruction at 0x20 cannot be probed: 0x20 (0f 0b): always raises #UD";
        assert_eq!(plain(one), plain(other));
    }
}
