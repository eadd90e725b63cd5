//! What may stand in which source file.

use super::text::code;
use super::{File, Violation};

/// The crates that name no instruction set and no operating system.
const NEUTRAL: &[&str] = &["crates/kprobes/src/", "crates/hit/src/", "crates/sync/src/", "crates/events/src/"];
/// Instruction sets, which they do not name outside comments. (Their tests may: they compare with Linux.)
const INSTRUCTION_SETS: &[&str] = &["x86", "amd64", "aarch64", "riscv", "iced"];
/// The crates that name no host: those, and `isa`.
const HOSTLESS: &[&str] =
    &["crates/isa/src/", "crates/kprobes/src/", "crates/hit/src/", "crates/sync/src/", "crates/events/src/"];
/// Words of a process, and of a bare machine, in small letters: these crates do not use them outside comments.
const HOSTS: &[&str] = &[
    "host_process",
    "ptrace",
    "sigtrap",
    "sigaction",
    "signal",
    "/proc",
    "mmap",
    "membarrier",
    "memfd",
    "gettid",
    "pthread",
    "libc::",
    "setjmp",
    "longjmp",
    "_unwind_",
    "vfork",
    "host_bare",
    "qemu",
    "apic",
    "page_table",
    "descriptor_table",
    "cr3",
    "serial_line",
];
/// Where the target's architecture may be asked for: by what runs on it, and by oracles that use the processor.
const BY_ARCHITECTURE: &[&str] =
    &["crates/cpu/", "crates/arch/src/", "crates/host-", "crates/testkit/", "apps/agent/", "apps/demo-kernel/"];
/// Where unsafe code may stand: where memory and processors are, in what calls handlers by their addresses, and in probe
/// modules. Of crates that have none otherwise, single places: promises that the compiler cannot check.
const UNSAFE: &[&str] = &[
    "crates/sync/",
    "crates/cpu/",
    "crates/host-",
    "crates/testkit/",
    "crates/module/",
    "crates/loader/tests/",
    "crates/arch/src/x86/handlers",
    "crates/hit/src/zeroed.rs",
    "crates/kprobes/src/api/",
    "apps/agent/",
    "apps/demo-kernel/",
    "torture/src/toggle/inside.rs",
    "modules/",
];
/// How far above an unsafe block its argument may begin.
const ARGUMENT_WITHIN: usize = 12;
const LONGEST: usize = 800;

/// The rules for Rust source.
pub(super) fn check(file: &File) -> Vec<Violation> {
    [neutral, hostless, architecture, unsafe_code, length].into_iter().flat_map(|rule| rule(file)).collect()
}

/// The rules for every text file: no paths of one machine, no registry by its host.
/// Lock files are cargo's own writing.
pub(super) fn check_any(file: &File) -> Vec<Violation> {
    if file.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    // In two parts, so that this file keeps its own rule.
    let machine = [["/wo", "rk/"], ["/ho", "me/"], ["/ro", "ot/"], ["cra", "tes.io"], ["github", ".com/rust-lang/cra"]];
    let words = machine.map(|parts| parts.concat());
    let lines = file.text.lines().map(str::to_owned);
    naming(file, lines, &words.each_ref().map(String::as_str), "names a machine's path or a registry's host")
}

fn within(file: &File, folders: &[&str]) -> bool {
    folders.iter().any(|folder| file.path.starts_with(folder))
}

/// Lines that contain one of `words`.
fn naming(file: &File, lines: impl IntoIterator<Item = String>, words: &[&str], what: &str) -> Vec<Violation> {
    let named = |line: &String| words.iter().copied().find(|word| line.contains(word));
    let found = lines.into_iter().zip(1..).filter_map(|(line, number)| Some((named(&line)?, number)));
    found.map(|(word, number)| Violation::new(format!("{}:{number}", file.path), format!("{what}: {word}"))).collect()
}

fn neutral(file: &File) -> Vec<Violation> {
    if !within(file, NEUTRAL) {
        return Vec::new();
    }
    naming(file, code(&file.text, true), INSTRUCTION_SETS, "names an instruction set")
}

fn hostless(file: &File) -> Vec<Violation> {
    if !within(file, HOSTLESS) {
        return Vec::new();
    }
    let small = code(&file.text, true).into_iter().map(|line| line.to_lowercase());
    naming(file, small, HOSTS, "names a host")
}

fn architecture(file: &File) -> Vec<Violation> {
    if within(file, BY_ARCHITECTURE) {
        return Vec::new();
    }
    naming(file, code(&file.text, false), &["target_arch"], "asks for the architecture")
}

fn unsafe_code(file: &File) -> Vec<Violation> {
    let lines = code(&file.text, false);
    if !within(file, UNSAFE) {
        let blocks = lines.into_iter().map(|line| if is_unsafe(&line) { line } else { String::new() });
        return naming(file, blocks, &["unsafe"], "is no place for unsafe code");
    }
    let original: Vec<_> = file.text.lines().collect();
    let argued =
        |at: usize| original[at.saturating_sub(ARGUMENT_WITHIN)..=at].iter().any(|line| line.contains("SAFETY:"));
    let blocks = lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe impl"));
    let silent = blocks.filter(|(at, _)| !argued(*at));
    silent
        .map(|(at, _)| Violation::new(format!("{}:{}", file.path, at + 1), "unsafe without a SAFETY comment"))
        .collect()
}

/// True for code that is unsafe, false for lints and attributes that only speak of it.
fn is_unsafe(line: &str) -> bool {
    let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.any(|word| word == "unsafe") && !line.contains("#[unsafe(")
}

fn length(file: &File) -> Vec<Violation> {
    let lines = file.text.lines().count();
    if lines <= LONGEST {
        return Vec::new();
    }
    vec![Violation::new(&file.path, format!("has {lines} lines, more than {LONGEST}"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&file).into_iter().chain(check_any(&file)).map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn the_engine_names_no_instruction_set() {
        let found = violations("crates/hit/src/lib.rs", "//! As on x86.\nuse isa::x86;\n");
        assert_eq!(found, ["crates/hit/src/lib.rs:2: names an instruction set: x86"]);
    }

    #[test]
    fn the_engine_names_no_file_of_a_host() {
        assert_eq!(violations("crates/kprobes/src/a.rs", "let f = \"/proc/self\";").len(), 1);
    }

    #[test]
    fn what_all_hosts_share_names_none() {
        let file = "crates/isa/src/a.rs";
        assert_eq!(violations(file, "// As a signal.\nstruct SignalStack;").len(), 1);
        assert_eq!(violations(file, "fn apic_id() {}").len(), 1);
        assert_eq!(violations(file, "use x86::Regs;"), [""; 0]);
    }

    #[test]
    fn a_host_may_name_itself() {
        assert_eq!(violations("crates/host-process/src/a.rs", "ptrace(\"/proc\")"), [""; 0]);
    }

    #[test]
    fn only_processors_and_hosts_ask_for_the_architecture() {
        let text = "#[cfg(target_arch = \"a\")]\nfn f() {}";
        assert_eq!(violations("crates/cpu/src/lib.rs", text), [""; 0]);
        assert_eq!(violations("crates/isa/src/lib.rs", text).len(), 1);
    }

    #[test]
    fn unsafe_code_outside_its_places_is_found() {
        let text = "fn f() {\n    // SAFETY: none.\n    unsafe { g() }\n}";
        assert_eq!(
            violations("crates/isa/src/a.rs", text),
            ["crates/isa/src/a.rs:3: is no place for unsafe code: unsafe"]
        );
        assert_eq!(violations("crates/sync/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn forbidding_unsafe_code_is_no_unsafe_code() {
        assert_eq!(violations("crates/isa/src/lib.rs", "#![forbid(unsafe_code)]\n// unsafe"), [""; 0]);
    }

    #[test]
    fn unsafe_code_without_an_argument_is_found() {
        assert_eq!(violations("crates/sync/src/a.rs", "fn f() {\n    unsafe { g() }\n}").len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(violations("crates/isa/src/a.rs", &"\n".repeat(801)).len(), 1);
        assert_eq!(violations("crates/isa/src/a.rs", &"\n".repeat(800)), [""; 0]);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let path = ["/ho", "me/somebody"].concat();
        assert_eq!(violations("xtask/src/a.rs", &format!("// see {path}")).len(), 1);
    }
}
