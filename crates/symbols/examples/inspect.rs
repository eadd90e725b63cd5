//! Prints what the crate knows of the files named.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Instant;
use symbols::Object;

fn main() {
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        match Object::read(Path::new(&path)) {
            Ok(object) => print(&path, &object, start),
            Err(error) => println!("{error}"),
        }
    }
}

fn print(path: &str, object: &Object, start: Instant) {
    let read = start.elapsed();
    let count = object.functions().len();
    let tables = start.elapsed();
    println!("{path}: {:?}, {count} functions, {:?}, {:?}", object.kind(), object.language(), object.libc());
    println!("  unwinder {:x?}", object.unwinder());
    println!("  longjmp {:x?}, notify {:x?}", object.longjmps(), object.dynamic_linker_notify());
    let scan = Instant::now();
    let sites = object.signal_syscall_sites(&[13, 14]);
    println!("  signal calls {}: {sites:x?}; any number {:x?}", sites.len(), object.raw_syscall_sites());
    println!("  read {read:?}, symbols {tables:?}, scan {:?}, all {:?}", scan.elapsed(), start.elapsed());
}
