//! `objdump`'s view of an object: instruction boundaries, and what control flow allows one to conclude about hits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// An instruction of a disassembly.
#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub(crate) address: u64,
    pub(crate) mnemonic: String,
    pub(crate) operands: String,
}

impl Instruction {
    fn parse(line: &str) -> Option<Self> {
        let (address, rest) = line.trim_start().split_once(":\t")?;
        let mut words = rest.split_ascii_whitespace().skip_while(|word| is_prefix(word));
        let mnemonic = words.next()?.to_owned();
        let operands = words.collect::<Vec<_>>().join(" ");
        Some(Self { address: u64::from_str_radix(address, 16).ok()?, mnemonic, operands })
    }

    fn jumps(&self) -> bool {
        self.mnemonic.starts_with('j') || self.mnemonic.starts_with("loop") || self.mnemonic.starts_with("xbegin")
    }

    /// True if execution always continues at the next instruction.
    pub(crate) fn falls_through(&self) -> bool {
        let leaves = ["ret", "call", "hlt", "ud2", "syscall", "int3", "iret"];
        !self.jumps() && !leaves.iter().any(|word| self.mnemonic.starts_with(word))
    }

    fn target(&self) -> Option<u64> {
        let first = self.operands.split_ascii_whitespace().next()?;
        (self.jumps() || self.mnemonic.starts_with("call")).then(|| u64::from_str_radix(first, 16).ok())?
    }

    fn is_indirect_jump(&self) -> bool {
        self.mnemonic.starts_with("jmp") && self.operands.starts_with('*')
    }
}

fn is_prefix(word: &str) -> bool {
    const PREFIXES: &[&str] =
        &["lock", "rep", "repz", "repnz", "bnd", "notrack", "data16", "cs", "ds", "es", "ss", "fs", "gs"];
    PREFIXES.contains(&word) || word.starts_with("rex")
}

/// A function symbol of the object's dynamic or full table.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

/// All instructions of an object, and all addresses that something jumps to.
#[derive(Debug)]
pub(crate) struct Disassembly {
    instructions: BTreeMap<u64, Instruction>,
    targets: BTreeSet<u64>,
}

impl Disassembly {
    /// Disassembles an object.
    ///
    /// # Panics
    ///
    /// If `objdump` cannot be run.
    pub(crate) fn of(object: &Path) -> Self {
        let arguments = ["-d", "-w", "--no-show-raw-insn"];
        let output = Command::new("objdump").args(arguments).arg(object).output().expect("binutils are installed");
        let text = String::from_utf8_lossy(&output.stdout);
        let instructions: BTreeMap<_, _> =
            text.lines().filter_map(Instruction::parse).map(|found| (found.address, found)).collect();
        let targets = instructions.values().filter_map(Instruction::target).collect();
        Self { instructions, targets }
    }

    /// The instructions of a function.
    pub(crate) fn body(&self, function: &Function) -> Vec<&Instruction> {
        let range = function.address..function.address + function.size;
        self.instructions.range(range).map(|(_, instruction)| instruction).collect()
    }

    /// True if direct jumps are the only way into the middle of a function.
    pub(crate) fn has_only_direct_jumps(&self, function: &Function) -> bool {
        !self.body(function).iter().any(|instruction| instruction.is_indirect_jump())
    }

    /// True if a direct jump or call leads to the address.
    pub(crate) fn is_target(&self, address: u64) -> bool {
        self.targets.contains(&address)
    }

    /// The first instruction at least `distance` bytes into a function that is reached whenever the entry is.
    pub(crate) fn straight_line_after_entry(&self, function: &Function, distance: u64) -> Option<u64> {
        let body = self.body(function);
        for pair in body.windows(2) {
            if !pair[0].falls_through() || self.is_target(pair[1].address) {
                return None;
            }
            if pair[1].address - function.address >= distance {
                return Some(pair[1].address);
            }
        }
        None
    }
}

/// The defined functions (no indirect ones) of an object's dynamic symbol table, or of its full one.
///
/// # Panics
///
/// If `readelf` cannot be run.
pub(crate) fn functions(object: &Path, dynamic: bool) -> Vec<Function> {
    let table = if dynamic { "--dyn-syms" } else { "--syms" };
    let output = Command::new("readelf").args(["-W", table]).arg(object).output().expect("binutils are installed");
    String::from_utf8_lossy(&output.stdout).lines().filter_map(function).collect()
}

fn function(line: &str) -> Option<Function> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, value, size, "FUNC", _, _, section, name, ..] = fields[..] else { return None };
    if section == "UND" {
        return None;
    }
    let size = size.strip_prefix("0x").map_or_else(|| size.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())?;
    // `name@VERSION` is an old version that a program linked today does not call.
    let (name, default) = name.split_once("@@").map_or((name, !name.contains('@')), |(name, _)| (name, true));
    default.then(|| u64::from_str_radix(value, 16).ok()).flatten().map(|address| Function {
        name: name.to_owned(),
        address,
        size,
    })
}

/// The names of the functions that an object imports.
///
/// # Panics
///
/// If `nm` cannot be run.
pub(crate) fn imports(object: &Path) -> BTreeSet<String> {
    let output =
        Command::new("nm").args(["-D", "--undefined-only"]).arg(object).output().expect("binutils are installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.split_ascii_whitespace().last());
    names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect()
}
