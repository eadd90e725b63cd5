//! Links by the kernel's own script: the addresses, and which functions are trap code.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

fn main() {
    let folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = Path::new(&folder).join("link.ld");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    for arg in ["-nostdlib", "-static", "--build-id=none", "-zmax-page-size=4096"] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
    corpus(Path::new(&folder));
    write("suite.s", &testkit::suite::assembly());
    println!("cargo:rerun-if-changed=link.ld");
    println!("cargo:rerun-if-changed=build.rs");
}

/// The corpus of instructions, `bytes | assembly | verdict | result`, as a table for the tests in the kernel: what a
/// kernel refuses to probe is left out.
fn corpus(folder: &Path) {
    let mut table = String::from("&[\n");
    for name in ["integer", "stack", "transfer"] {
        let path = folder.join("../../corpus/x86_64").join(name).with_extension("txt");
        println!("cargo:rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).expect("the corpus is part of the repository");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            let [bytes, assembly, verdict, _] = columns[..] else { continue };
            let verdict = verdict.split("kernel: ").last().unwrap_or(verdict);
            if !verdict.starts_with("refuse") {
                let bytes: Vec<String> = bytes.split(' ').map(|byte| format!("0x{byte}")).collect();
                writeln!(table, "    ({assembly:?}, &[{}]),", bytes.join(", ")).expect("a string takes it");
            }
        }
    }
    table.push_str("]\n");
    write("corpus.rs", &table);
}

/// Writes a file for the kernel to include.
fn write(name: &str, text: &str) {
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join(name), text).expect("the folder is ours");
}
