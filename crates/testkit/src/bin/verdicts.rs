//! How much of real programs can be probed: `verdicts FILE...` prints a table of verdicts over all
//! instructions of the functions of ELF files.
//!
//! A function's bounds come from its symbol, or from unwind tables where symbols were stripped.
//! Padding between functions and data in text are not in them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::{env, fs};

use anyhow::{Context, Result};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use isa::x86::{Privilege, Repair, Verdict, analyse, boundaries, exits, window};
use object::{Object, ObjectKind, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// Addresses and sizes of functions.
type Functions = BTreeMap<u64, u64>;

#[derive(Default)]
struct Count {
    functions: u64,
    lost: u64,
    enumerable: u64,
    tables: u64,
    instructions: u64,
    emulated: u64,
    boosted: u64,
    relocated: u64,
    repaired: u64,
    leaving: u64,
    refused: BTreeMap<&'static str, u64>,
    entries: Jumps,
    anywhere: Jumps,
}

/// Where a jump can be, and why it cannot elsewhere.
#[derive(Default)]
struct Jumps {
    can: u64,
    cannot: BTreeMap<&'static str, u64>,
}

impl Jumps {
    /// A jump at `addr`, alone there, whose detour may be anywhere in a process that has nothing else mapped.
    fn add(&mut self, code: &[u8], start: u64, addr: u64) {
        const ADDRESSES: Range<u64> = 0x1_0000..1 << 47;
        let found = window(code, start, addr, Privilege::User);
        match found.map_err(|none| none.rule()).and_then(|w| w.target(ADDRESSES).ok_or("out-of-reach")) {
            Ok(_) => self.can += 1,
            Err(rule) => *self.cannot.entry(rule).or_default() += 1,
        }
    }

    fn print(&self, what: &str) {
        let all = self.can + self.cannot.values().sum::<u64>();
        let percent = |n: u64| n as f64 * 100.0 / all.max(1) as f64;
        print!("    by jump: {:.2}% of {all} {what};", percent(self.can));
        self.cannot.iter().for_each(|(rule, n)| print!(" {rule} {:.2}%", percent(*n)));
        println!();
    }
}

/// Where an object that can be anywhere is put, as a library would be.
const BIAS: u64 = 0x7F00_0000_0000;

fn main() -> Result<()> {
    println!(
        "{:<28} {:>9} {:>11} {:>8} {:>8} {:>9} {:>8} {:>7} {:>8}   refused by rule",
        "file", "functions", "instructions", "emulated", "boosted", "relocated", "repaired", "leaves", "refused"
    );
    for path in env::args_os().skip(1) {
        let name = path.to_string_lossy().into_owned();
        let count = file(&fs::read(&path)?).with_context(|| name.clone())?;
        print(&name, &count);
    }
    Ok(())
}

fn file(bytes: &[u8]) -> Result<Count> {
    let object = object::File::parse(bytes)?;
    let mut functions = symbols(&object);
    if functions.is_empty() {
        functions = unwind_tables(&object)?;
    }
    let mut count = Count::default();
    for section in object.sections().filter(|section| section.kind() == SectionKind::Text) {
        let data = section.data()?;
        let start = section.address();
        for (addr, size) in functions.range(start..start + section.size()) {
            let from = (addr - start) as usize;
            let Some(code) = data.get(from..from + *size as usize) else { continue };
            let moved = if object.kind() == ObjectKind::Dynamic { BIAS } else { 0 };
            function(&mut count, code, addr + moved);
        }
    }
    Ok(count)
}

fn symbols(object: &object::File<'_>) -> Functions {
    let functions = object.symbols().filter(|s| s.kind() == SymbolKind::Text && s.size() != 0);
    functions.map(|symbol| (symbol.address(), symbol.size())).collect()
}

fn unwind_tables(object: &object::File<'_>) -> Result<Functions> {
    let mut functions = Functions::new();
    let Some(section) = object.section_by_name(".eh_frame") else { return Ok(functions) };
    let data = section.data()?;
    let frames = EhFrame::new(data, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next()? {
        if let CieOrFde::Fde(partial) = entry {
            let fde = partial.parse(EhFrame::cie_from_offset)?;
            functions.insert(fde.initial_address(), fde.len());
        }
    }
    Ok(functions)
}

fn function(count: &mut Count, code: &[u8], start: u64) {
    let sweep = boundaries(code, start);
    let ways = exits(code, start);
    count.functions += 1;
    count.lost += u64::from(sweep.lost().is_some());
    count.enumerable += u64::from(ways.enumerable());
    count.tables += ways.tables.len() as u64;
    count.entries.add(code, start, start);
    for addr in sweep.starts() {
        count.anywhere.add(code, start, addr);
        let bytes = code.get((addr - start) as usize..).unwrap_or_default();
        count.instructions += 1;
        match analyse(bytes, addr, Privilege::User).map(|analysis| analysis.verdict) {
            Ok(Verdict::Emulate(_)) => count.emulated += 1,
            Ok(Verdict::Slot(plan)) => {
                count.boosted += u64::from(plan.boostable());
                count.leaving += u64::from(!plan.boostable());
                count.relocated += u64::from(!plan.position_independent());
                count.repaired += u64::from(plan.repair() != Repair::Nothing);
            }
            Err(refusal) => *count.refused.entry(refusal.rule()).or_default() += 1,
        }
    }
}

fn print(name: &str, count: &Count) {
    let percent = |n: u64| n as f64 * 100.0 / count.instructions.max(1) as f64;
    let refused: u64 = count.refused.values().sum();
    let name = name.rsplit('/').next().unwrap_or(name);
    print!(
        "{name:<28} {:>9} {:>12} {:>7.2}% {:>7.2}% {:>8.2}% {:>7.3}% {:>6.3}% {:>7.3}%  ",
        count.functions,
        count.instructions,
        percent(count.emulated),
        percent(count.boosted),
        percent(count.relocated),
        percent(count.repaired),
        percent(count.leaving),
        percent(refused)
    );
    for (rule, n) in &count.refused {
        print!(" {rule} {n} ({:.4}%)", percent(*n));
    }
    let functions = count.functions.max(1) as f64;
    println!(
        "; exits enumerable {:.1}%, {} jump tables, {} functions lost",
        count.enumerable as f64 * 100.0 / functions,
        count.tables,
        count.lost
    );
    count.entries.print("function entries");
    count.anywhere.print("instructions");
}
