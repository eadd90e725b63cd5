//! Links by the kernel's own script: the addresses, and which functions are trap code.

use std::env;
use std::path::Path;

fn main() {
    let folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = Path::new(&folder).join("link.ld");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    for arg in ["-nostdlib", "-static", "--build-id=none", "-zmax-page-size=4096"] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
    println!("cargo:rerun-if-changed=link.ld");
    println!("cargo:rerun-if-changed=build.rs");
}
