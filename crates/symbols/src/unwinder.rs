//! Which unwinder an object contains, and where it begins.
//!
//! A return probe changes a return address on the stack, which an unwinder would not understand. So
//! whoever sets return probes hooks the functions with which unwinding starts, puts the true
//! addresses back, and re-arms what survives when a landing pad is chosen (`_Unwind_SetIP`). That
//! needs the entries of *every* unwinder in the process: `libgcc_s`, copies linked statically into
//! programs and plug-ins, LLVM's in Rust programs for musl.
//!
//! | Unwinder | By symbols | Stripped |
//! |---|---|---|
//! | libgcc | `_Unwind_*` | its entries are the only functions that save `rax` and `rdx` in their unwind tables (they end in `__builtin_eh_return`), and `_Unwind_SetIP` is one store |
//! | LLVM libunwind | `_Unwind_*`, checked by its register restoring code | found, not identified: nothing tells its entries |
//! | nongnu libunwind | `_Unwind_*` beside `_ULx86_64_*` | found, not identified |
//!
//! Names that an object only imports do not count: they live in another object.

mod libgcc;
mod llvm;

use crate::object::Object;
use crate::runtime::contains;

/// Whose unwinder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// GCC's, in `libgcc_s.so.1` or linked statically.
    Libgcc,
    /// LLVM's libunwind.
    Llvm,
    /// The libunwind of nongnu.org. Only its `_Unwind_*` functions are reported: programs that walk
    /// the stack with `unw_step` are not seen by hooks on them.
    Nongnu,
}

/// The functions of one unwinder. A list has several addresses if the object has several copies.
///
/// ```
/// use std::path::Path;
/// use symbols::{Flavor, Object, UnwinderStatus};
///
/// # let maps = std::fs::read_to_string("/proc/self/maps")?;
/// # let mut mapped = maps.lines().filter_map(|line| line.split(' ').next_back());
/// # let libgcc = mapped.find(|path| path.ends_with("/libgcc_s.so.1")).ok_or("this is not linked to libgcc_s")?;
/// let object = Object::read(Path::new(libgcc))?;
/// let UnwinderStatus::Identified(unwinder) = object.unwinder() else { panic!("it is an unwinder") };
/// assert_eq!(unwinder.flavor, Flavor::Libgcc);
/// // A walk along the stack comes back, an exception does not.
/// let (entries, backtrace) = (unwinder.entries(), unwinder.backtrace.ok_or("it can walk")?);
/// assert!(unwinder.raise.iter().all(|raise| entries.contains(raise)) && !entries.contains(&backtrace));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unwinder {
    /// Whose it is.
    pub flavor: Flavor,
    /// `_Unwind_RaiseException`: an exception is thrown.
    pub raise: Vec<u64>,
    /// `_Unwind_Resume`: a clean-up is done, go on.
    pub resume: Vec<u64>,
    /// `_Unwind_Resume_or_Rethrow`: an exception is thrown again.
    pub resume_or_rethrow: Vec<u64>,
    /// `_Unwind_ForcedUnwind`: a thread is cancelled or exits.
    pub forced: Vec<u64>,
    /// Entries of a stripped unwinder that are some of the four above; all are hooked alike.
    pub unclassified: Vec<u64>,
    /// `_Unwind_Backtrace`: the stack is walked, and returned to as it was.
    pub backtrace: Option<u64>,
    /// `_Unwind_SetIP`: a landing pad is chosen.
    pub set_ip: Option<u64>,
    /// Where, in the context that [`set_ip`](Self::set_ip) gets in `rdi`, the canonical frame
    /// address of what was called last by the handler's frame is: all frames below it are gone.
    /// None if the code does not tell.
    pub set_ip_cfa_offset: Option<u32>,
}

impl Unwinder {
    fn new(flavor: Flavor) -> Self {
        let none = Vec::new;
        Self {
            flavor,
            raise: none(),
            resume: none(),
            resume_or_rethrow: none(),
            forced: none(),
            unclassified: none(),
            backtrace: None,
            set_ip: None,
            set_ip_cfa_offset: None,
        }
    }

    /// All functions that begin to unwind for good (not [`backtrace`](Self::backtrace)), by
    /// address.
    #[must_use]
    pub fn entries(&self) -> Vec<u64> {
        let lists = [&self.raise, &self.resume, &self.resume_or_rethrow, &self.forced, &self.unclassified];
        let mut all: Vec<u64> = lists.into_iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What was found out about an object's unwinder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnwinderStatus {
    /// No unwinder inside, as far as can be seen.
    None,
    /// This one.
    Identified(Unwinder),
    /// Code that unwinds seems to be inside, and its entries cannot be found: return addresses here
    /// must stay true.
    Unidentifiable {
        /// What was seen, for the user.
        why: String,
    },
}

pub(crate) fn identify(object: &Object) -> UnwinderStatus {
    if object.is_go() && !object.frames().has_personality {
        return UnwinderStatus::None;
    }
    by_symbols(object).or_else(|| libgcc::by_marks(object)).unwrap_or_else(|| by_traces(object))
}

/// By defined symbols; none if there are none.
///
/// An object without `_Unwind_SetIP` is no unwinder, whatever else it defines: glibc has an
/// `_Unwind_Resume` that loads the real one, sanitizers put their `_Unwind_RaiseException` before
/// it.
fn by_symbols(object: &Object) -> Option<UnwinderStatus> {
    let all = |name: &str| {
        let mut found: Vec<u64> = object.functions_named(name).iter().map(|f| f.addr).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let (raise, set_ip) = (all("_Unwind_RaiseException"), all("_Unwind_SetIP"));
    if set_ip.is_empty() {
        return None;
    }
    let (flavor, set_ip_cfa_offset) = match flavor(object, &set_ip) {
        Ok(found) => found,
        Err(why) => return Some(UnwinderStatus::Unidentifiable { why }),
    };
    Some(UnwinderStatus::Identified(Unwinder {
        raise,
        resume: all("_Unwind_Resume"),
        resume_or_rethrow: all("_Unwind_Resume_or_Rethrow"),
        forced: all("_Unwind_ForcedUnwind"),
        backtrace: all("_Unwind_Backtrace").first().copied(),
        set_ip: set_ip.first().copied(),
        set_ip_cfa_offset,
        ..Unwinder::new(flavor)
    }))
}

fn flavor(object: &Object, set_ip: &[u64]) -> Result<(Flavor, Option<u32>), String> {
    let nongnu = ["_ULx86_64_", "_Ux86_64_", "__libunwind_Unwind_"];
    let functions = object.functions();
    if functions.iter().any(|f| nongnu.iter().any(|prefix| f.name().starts_with(prefix))) {
        return Ok((Flavor::Nongnu, None));
    }
    let [set_ip] = *set_ip else {
        return Err(format!("it defines {} functions named _Unwind_SetIP", set_ip.len()));
    };
    if let Some(offset) = libgcc::cfa_offset(object, set_ip) {
        return Ok((Flavor::Libgcc, Some(offset)));
    }
    if let Some(offset) = llvm::cfa_offset(object) {
        return Ok((Flavor::Llvm, Some(offset)));
    }
    Err("it defines _Unwind_SetIP, but its code is that of no known unwinder".to_owned())
}

/// What remains visible of an unwinder whose entries nothing tells.
fn by_traces(object: &Object) -> UnwinderStatus {
    let imports = object.table().imports.iter().any(|n| n.as_str().starts_with("_Unwind_"));
    let unidentifiable = |why: &str| UnwinderStatus::Unidentifiable { why: why.to_owned() };
    if llvm::restores_registers(object) {
        return unidentifiable("LLVM's libunwind is linked in, and the symbols that name its entries are stripped");
    }
    if imports {
        return UnwinderStatus::None;
    }
    let says = |text: &[u8]| object.read_only_data().any(|bytes| contains(bytes, text));
    if says(b"libunwind: %s - %s") || says(b"LIBUNWIND_PRINT_UNWINDING") {
        return unidentifiable("messages of libunwind are inside, and the symbols that name its entries are stripped");
    }
    // Code with clean-ups needs an unwinder; what is not linked to another object has it inside.
    if object.is_static() && object.frames().has_personality {
        return unidentifiable("it is static and has exception tables, but no unwinder that is known");
    }
    UnwinderStatus::None
}
