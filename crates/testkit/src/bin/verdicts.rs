//! How much of real programs can be probed: `verdicts FILE...` prints a table of verdicts over all
//! instructions of the functions of ELF files.
//!
//! A function's bounds come from its symbol, or from unwind tables where symbols were stripped.
//! Padding between functions and data in text are not in them.

use std::collections::BTreeMap;
use std::{env, fs};

use anyhow::{Context, Result};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use isa::x86::{Privilege, Repair, Verdict, analyse, boundaries, exits};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

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
}

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
            function(&mut count, code, *addr);
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
    for addr in sweep.starts() {
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
}
