//! Libraries that come and go while the program probes itself.

use core::ffi::CStr;
use host_process::local::Process;

const LIBRARY: &CStr = c"libcrypt.so.1";

fn open() -> Option<*mut core::ffi::c_void> {
    // SAFETY: a constant path; the library has no constructor that matters to us.
    let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
    (!library.is_null()).then_some(library)
}

#[test]
fn a_library_is_probed_after_it_was_loaded_and_forgotten_after_it_has_gone() {
    let process = Process::start().unwrap();
    let line = "p:crypt libcrypt.so.1:crypt";
    let said = process.define(line).unwrap_err().to_string();
    assert!(said.contains("load it first"), "{said}");
    for _ in 0..3 {
        let Some(library) = open() else { return eprintln!("skipped: no {LIBRARY:?} on this system") };
        process.define(line).unwrap();
        // SAFETY: the function's own prototype, with constant strings.
        unsafe {
            let crypt = libc::dlsym(library, c"crypt".as_ptr());
            let crypt: extern "C" fn(*const i8, *const i8) -> *const i8 = core::mem::transmute(crypt);
            assert!(!crypt(c"word".as_ptr(), c"$5$salt".as_ptr()).is_null());
        }
        assert_eq!(process.counts("crypt").unwrap().hits, 1);
        // SAFETY: nothing of it is used any more.
        unsafe { libc::dlclose(library) };
        process.remove("crypt").unwrap();
    }
}
