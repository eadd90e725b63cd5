//! The corpus: one instruction a line, `bytes | assembly | verdict | result`.
//!
//! Only the bytes are written by hand; the rest is made from them (`BLESS=1`) and reviewed as a
//! diff. The result is what the processor does from a fixed state: registers and memory that
//! changed, `+n` for the next instruction after n bytes, defined flags only, `vectors` if any
//! vector register changed.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use isa::x86::{Privilege, Regs, Repair, Verdict, analyse, disassemble, flags, gpr};

use crate::differential::{Case, Oracle, changes, general_registers};
use crate::generate::repeatable;
use crate::processor::{CODE, DATA, End, MEMORY_LEN, STACK, State};

/// One line, or what stands between lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A comment or an empty line.
    Text(String),
    /// A case.
    Entry(Entry),
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The instruction.
    pub bytes: Vec<u8>,
    /// All columns but the bytes.
    pub columns: [String; 3],
}

/// A file of the corpus.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Its lines.
    pub lines: Vec<Line>,
}

impl File {
    /// The cases.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter_map(|line| match line {
            Line::Entry(entry) => Some(entry),
            Line::Text(_) => None,
        })
    }
}

/// The folder of the corpus of one instruction set.
#[must_use]
pub fn folder(isa: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(isa)
}

/// Reads all files of `folder`.
///
/// # Errors
///
/// A file cannot be read, or has a line that is no case.
pub fn read(folder: &Path) -> io::Result<Vec<File>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths.into_iter().map(file).collect()
}

fn file(path: PathBuf) -> io::Result<File> {
    let text = fs::read_to_string(&path)?;
    let lines = text.lines().enumerate().map(|(number, line)| {
        parse(line).ok_or_else(|| io::Error::other(format!("{}:{}: no case: {line}", path.display(), number + 1)))
    });
    let lines = lines.collect::<io::Result<_>>()?;
    Ok(File { path, lines })
}

fn parse(line: &str) -> Option<Line> {
    if line.is_empty() || line.starts_with('#') {
        return Some(Line::Text(line.to_owned()));
    }
    let mut columns = line.split('|').map(str::trim);
    let bytes = columns.next()?.split(' ').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    let mut rest = || columns.next().unwrap_or_default().to_owned();
    Some(Line::Entry(Entry { bytes, columns: [rest(), rest(), rest()] }))
}

/// Writes a file, its columns aligned.
///
/// # Errors
///
/// It cannot be written.
///
/// ```
/// use testkit::corpus::{Entry, File, Line, read, write};
///
/// # fn main() -> std::io::Result<()> {
/// # let folder = std::env::temp_dir().join(format!("corpus-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let columns = ["nop", "emulate", "+1"].map(String::from);
/// let lines = vec![Line::Text("# nothing".into()), Line::Entry(Entry { bytes: vec![0x90], columns })];
/// let file = File { path: folder.join("nop.txt"), lines };
/// write(&file)?;
/// assert_eq!(read(&folder)?[0].lines, file.lines);
/// # std::fs::remove_dir_all(&folder)
/// # }
/// ```
pub fn write(file: &File) -> io::Result<()> {
    let mut text = String::new();
    for line in &file.lines {
        match line {
            Line::Text(line) => text.push_str(line),
            Line::Entry(entry) => text.push_str(&render(entry)),
        }
        text.push('\n');
    }
    fs::write(&file.path, text)
}

fn render(entry: &Entry) -> String {
    let [assembly, verdict, result] = &entry.columns;
    format!("{:<44} | {assembly:<52} | {verdict:<28} | {result}", hexadecimal(&entry.bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// The case of an instruction in the fixed state.
#[must_use]
pub fn case(oracle: &Oracle, bytes: &[u8]) -> Case {
    let addr = CODE.addr + 0x800;
    let mut gpr = [0; 16];
    gpr[gpr::RAX] = 24;
    gpr[gpr::RCX] = 3;
    gpr[gpr::RBX] = DATA.addr + 0x400;
    gpr[gpr::RSP] = STACK.addr + 0x1000;
    gpr[gpr::RBP] = STACK.addr + 0x1100;
    gpr[gpr::RSI] = DATA.addr + 0x100;
    gpr[gpr::RDI] = DATA.addr + 0x200;
    gpr[8..].copy_from_slice(&[
        DATA.addr + 0x800,
        8,
        0x0123_4567_89AB_CDEF,
        CODE.addr + 0x400,
        DATA.addr + 0x600,
        DATA.addr + 0x700,
        CODE.addr + 0x420,
        u64::MAX,
    ]);
    let regs = Regs { gpr, rip: addr, flags: 0x202 | flags::ZF | flags::PF };
    let state =
        State { regs, fs_base: DATA.addr + 0x1000, gs_base: DATA.addr + 0x1800, vectors: oracle.processor.vectors(1) };
    // Every word is the address of a breakpoint in the code window.
    let words = (0..MEMORY_LEN as u64 / 8).map(|i| CODE.addr + 0x200 + i % 0x200);
    Case { code: bytes.to_vec(), addr, state, memory: words.flat_map(u64::to_le_bytes).collect() }
}

/// The columns of an instruction, as they are on this machine.
///
/// ```
/// use isa::x86::gpr;
/// use testkit::corpus::{self, File, case, columns, folder};
/// use testkit::differential::Oracle;
///
/// # fn main() -> std::io::Result<()> {
/// let mut oracle = Oracle::new();
/// let copy = [0x48, 0x89, 0xD8];
/// let said = columns(&mut oracle, &copy);
/// assert_eq!(said, ["mov rax, rbx", "slot", "+3 rax=20000400"]);
/// assert_eq!(case(&oracle, &copy).state.regs.gpr[gpr::RBX], 0x2000_0400, "as in every case");
///
/// // What the corpus has of the instruction is the same.
/// let files = corpus::read(&folder("x86_64"))?;
/// let entry = files.iter().flat_map(File::entries).find(|entry| entry.bytes == copy);
/// assert_eq!(entry.map(|entry| &entry.columns), Some(&said));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn columns(oracle: &mut Oracle, bytes: &[u8]) -> [String; 3] {
    let case = case(oracle, bytes);
    let assembly = disassemble(bytes, case.addr).unwrap_or_else(|| "(bad)".to_owned());
    let verdict = verdict(bytes, case.addr);
    let runs = !verdict.starts_with("refuse") && repeatable(&case.instruction());
    let result = if runs { result(oracle, &case) } else { "-".to_owned() };
    [assembly, verdict, result]
}

fn verdict(bytes: &[u8], addr: u64) -> String {
    let for_kernel = match analyse(bytes, addr, Privilege::Kernel) {
        Ok(analysis) => name(&analysis.verdict),
        Err(refusal) => format!("refuse {}", refusal.rule()),
    };
    let for_user = match analyse(bytes, addr, Privilege::User) {
        Ok(analysis) => name(&analysis.verdict),
        Err(refusal) => format!("refuse {}", refusal.rule()),
    };
    if for_user == for_kernel { for_user } else { format!("{for_user}; kernel: {for_kernel}") }
}

fn name(verdict: &Verdict) -> String {
    let Verdict::Slot(plan) = verdict else { return "emulate".to_owned() };
    let mut name = "slot".to_owned();
    if !plan.position_independent() {
        name.push_str(" relocated");
    }
    match plan.repair() {
        Repair::Rcx => name.push_str(" rcx"),
        Repair::PushedTrapFlag(_) => name.push_str(" pushes-flags"),
        Repair::LoadedFlags => name.push_str(" loads-flags"),
        Repair::Nothing => {}
    }
    if !plan.boostable() {
        name.push_str(" leaves");
    }
    if !plan.steppable() {
        name.push_str(" no-step");
    }
    name
}

/// What the processor does with the case.
fn result(oracle: &mut Oracle, case: &Case) -> String {
    let outcome = oracle.in_place(case);
    if let End::Fault { signal, .. } = outcome.end {
        let name = match signal {
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGILL => "SIGILL",
            libc::SIGFPE => "SIGFPE",
            libc::SIGBUS => "SIGBUS",
            _ => "signal",
        };
        return format!("fault {name}");
    }
    let (before, after) = (&case.state.regs, &outcome.state.regs);
    let mut text = match after.rip.wrapping_sub(case.addr) {
        next @ 1..=15 => format!("+{next}"),
        _ => format!("rip={:x}", after.rip),
    };
    for ((name, before), (_, after)) in general_registers(before).zip(general_registers(after)) {
        if before != after {
            let _ = write!(text, " {name}={after:x}");
        }
    }
    let undefined = undefined_flags(case);
    if (before.flags ^ after.flags) & !undefined != 0 {
        let _ = write!(text, " flags={:x}", after.flags & !undefined);
    }
    let mut written: Vec<u64> = changes(&case.memory, &outcome.memory).map(|(addr, _)| addr & !7).collect();
    written.dedup();
    for addr in written.iter().take(2) {
        let at = crate::processor::memory_offset(*addr, 8).unwrap_or_default();
        let word = outcome.memory[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let _ = write!(text, " [{addr:x}]={word:x}");
    }
    if written.len() > 2 {
        let _ = write!(text, " (+{} words)", written.len() - 2);
    }
    if outcome.state.vectors != case.state.vectors {
        text.push_str(" vectors");
    }
    text
}

fn undefined_flags(case: &Case) -> u64 {
    use iced_x86::RflagsBits as Bits;
    let names = [
        (Bits::OF, flags::OF),
        (Bits::SF, flags::SF),
        (Bits::ZF, flags::ZF),
        (Bits::AF, flags::AF),
        (Bits::CF, flags::CF),
        (Bits::PF, flags::PF),
    ];
    let undefined = case.instruction().rflags_undefined();
    names.iter().filter(|(bit, _)| undefined & bit != 0).map(|(_, flag)| flag).sum()
}
