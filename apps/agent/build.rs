//! Links a shared object that needs nobody: no start files, no libraries, no undefined symbol.

fn main() {
    for arg in [
        "-nostartfiles",
        "-nostdlib",
        "-Wl,-Bsymbolic",
        "-Wl,-z,noexecstack",
        "-Wl,-z,norelro",
        "-Wl,-z,separate-code",
        "-Wl,--no-undefined",
        "-Wl,--build-id=none",
        "-Wl,--hash-style=sysv",
    ] {
        println!("cargo:rustc-link-arg-cdylib={arg}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
