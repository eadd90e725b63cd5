//! Whether libraries were loaded or unloaded since the last look.

use core::ffi::c_void;

/// How many objects the dynamic linker has ever loaded, and how many unloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    added: u64,
    removed: u64,
}

impl Loaded {
    /// The numbers of now. A static program stays at its first ones.
    pub(crate) fn now() -> Self {
        let mut loaded = Self::default();
        // SAFETY: `note` is called with this argument, before the call returns.
        unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut loaded).cast()) };
        loaded
    }
}

/// Called for the first object, and for no other: the numbers are the same for all.
unsafe extern "C" fn note(object: *mut libc::dl_phdr_info, _: usize, loaded: *mut c_void) -> i32 {
    // SAFETY: the dynamic linker's record of an object, and the argument that `now` has given.
    let (object, loaded) = unsafe { (&*object, &mut *loaded.cast::<Loaded>()) };
    *loaded = Loaded { added: object.dlpi_adds, removed: object.dlpi_subs };
    1
}
