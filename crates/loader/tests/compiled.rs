//! What compilers write, linked, put into memory and run.

use loader::{Error, Linked, Object, Part};
use std::path::Path;
use std::process::Command;

const SOURCE: &str = r"
extern long host_add(long, long);
extern long optional(void) __attribute__((weak));
static long counter = 40;
long zeros[100];
static const long table[] = { 1, 2, 3 };
static long twice(long x) { return 2 * x; }
long (*const operations[])(long) = { twice };
long count(long by) { zeros[7] += by; return counter += by; }
long sum(void) { return host_add(table[2], operations[0](zeros[7])); }
long has_optional(void) { return optional != 0; }
";

extern "C" fn host_add(a: i64, b: i64) -> i64 {
    a + b
}

/// Compiles a source with these options; none if there is no compiler.
fn compile(folder: &Path, options: &[&str], source: &str) -> Option<Vec<u8>> {
    std::fs::write(folder.join("m.c"), source).expect("a temporary folder");
    let mut command = Command::new("gcc");
    let output = command.args(options).args(["-c", "m.c", "-o", "m.o"]).current_dir(folder).output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: no gcc");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(folder.join("m.o")).expect("just compiled"))
}

/// Memory with a module in it.
struct Loaded(Linked);

impl Loaded {
    fn new(object: &Object<'_>) -> Self {
        let (size, none) = (object.size() as usize, core::ptr::null_mut());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever the kernel likes.
        let memory = unsafe { libc::mmap(none, size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        let base = memory as u64;
        let mut host = |name: &str| (name == "host_add").then_some(host_add as *const () as u64);
        let linked = object.link(base, &mut host).expect("all is there");
        for segment in linked.parts() {
            let (start, bytes) = (base + segment.offset, linked.bytes(segment));
            let protection = match segment.part {
                Part::Text => libc::PROT_READ | libc::PROT_EXEC,
                Part::ReadOnly => libc::PROT_READ,
                Part::Data => libc::PROT_READ | libc::PROT_WRITE,
            };
            // SAFETY: the segment is inside the new mapping, which nobody else knows.
            unsafe {
                core::ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len());
                assert_eq!(libc::mprotect(start as *mut _, bytes.len(), protection), 0);
            }
        }
        Self(linked)
    }

    fn call(&self, name: &str, argument: i64) -> i64 {
        let address = self.0.symbol(name).expect("the source defines it");
        // SAFETY: the source's functions take a long or nothing and return a long; their code is mapped.
        unsafe { core::mem::transmute::<*const (), extern "C" fn(i64) -> i64>(address as *const ())(argument) }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let range = self.0.range();
        // SAFETY: `new` mapped it, and no call is under way.
        unsafe { libc::munmap(range.start as *mut _, (range.end - range.start) as usize) };
    }
}

fn check(module: &Loaded) {
    assert_eq!(module.call("count", 2), 42);
    assert_eq!(module.call("count", 8), 50);
    assert_eq!(module.call("sum", 0), 3 + 2 * 10);
    assert_eq!(module.call("has_optional", 0), 0);
}

#[test]
fn position_independent_code_without_linkage_tables_runs_at_any_distance_from_its_host() {
    let folder = tempfile::tempdir().unwrap();
    for level in ["-O0", "-O2"] {
        let options = [level, "-fPIC", "-fno-plt", "-g", "-ffunction-sections"];
        let Some(bytes) = compile(folder.path(), &options, SOURCE) else { return };
        let object = Object::parse(&bytes).unwrap();
        let mut undefined: Vec<_> = object.undefined().collect();
        undefined.sort_unstable();
        assert_eq!(undefined, ["host_add", "optional"]);
        check(&Loaded::new(&object));
    }
}

/// The same file runs twice at once: nothing of it is shared.
#[test]
fn two_copies_of_a_module_have_their_own_variables() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bytes) = compile(folder.path(), &["-O2", "-fPIC", "-fno-plt"], SOURCE) else { return };
    let object = Object::parse(&bytes).unwrap();
    let (first, second) = (Loaded::new(&object), Loaded::new(&object));
    check(&first);
    check(&second);
}

#[test]
fn code_for_a_kernels_addresses_links_at_the_top_of_the_address_space_only() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["-O2", "-fno-pic", "-mcmodel=kernel", "-fno-asynchronous-unwind-tables"];
    let Some(bytes) = compile(folder.path(), &options, SOURCE) else { return };
    let object = Object::parse(&bytes).unwrap();
    let kernel = 0xffff_ffff_a000_0000;
    let linked = object.link(kernel, &mut |name| (name == "host_add").then_some(kernel - 0x1000_0000));
    assert_eq!(linked.unwrap().symbol("count").map(|address| address >> 28), Some(0xf_ffff_fffa));
    let low = object.link(0x7f00_0000_0000, &mut |_| Some(0x7f00_1000_0000));
    assert!(matches!(low, Err(Error::OutOfReach { .. })), "{low:?}");
}

#[test]
fn functions_of_a_compiled_file_have_names_and_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bytes) = compile(folder.path(), &["-O0", "-fPIC"], SOURCE) else { return };
    let linked = Object::parse(&bytes).unwrap().link(0x1000_0000, &mut |_| Some(0x1100_0000)).unwrap();
    let names: Vec<_> = linked.functions().map(|function| function.name).collect();
    assert_eq!(names, ["twice", "count", "sum", "has_optional"]);
    assert!(linked.functions().all(|f| f.size > 0 && linked.function_at(f.address + f.size - 1) == Some(f)));
}

#[test]
fn what_compilers_write_and_a_module_cannot_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("__thread int x = 3; int f(void) { return x; }", "thread-local"),
        ("__attribute__((constructor)) void f(void) {}", "constructors"),
        (
            "static void g(void) {}\nstatic void *r(void) { return g; }\nvoid f(void) __attribute__((ifunc(\"r\")));",
            "ifunc",
        ),
    ];
    for (source, word) in cases {
        let Some(bytes) = compile(folder.path(), &["-O2", "-fPIC"], source) else { return };
        let error = Object::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let Some(bytes) = compile(folder.path(), &["-fcommon"], "int shared;") else { return };
    assert_eq!(Object::parse(&bytes).unwrap_err(), Error::CommonSymbol { symbol: "shared".into() });
}

#[test]
fn a_linked_program_is_no_module() {
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(Object::parse(&bytes), Err(Error::NotRelocatable { .. })));
}
