//! The host's own probes in a target: what keeps breakpoints and return probes right.

use super::objects::{Cache, Mapped, Objects};
use crate::abi::action;
use isa::x86::{Exit, exits};
use std::sync::Arc;
use symbols::{Libc, UnwinderStatus};

/// System calls whose sites are guarded always: they change what happens to `SIGTRAP`, or forbid system calls.
const GUARDED: [i64; 12] = [
    libc::SYS_ptrace,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigsuspend,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
];

/// What the probes of a trace need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Needs {
    /// There are return probes.
    pub(crate) returns: bool,
    /// Executed programs are followed.
    pub(crate) exec: bool,
    /// `libseccomp` is mapped: a filter may come through a system call whose number is in a register.
    pub(crate) sandbox: bool,
}

/// Where hooks belong in the objects that are mapped: addresses and [`action`] words. A file is searched once.
pub(crate) fn wanted(objects: &Objects, needs: Needs, cache: &mut Cache) -> Vec<(u64, u64)> {
    let seccomp = |o: &Mapped| o.base_name().starts_with("libseccomp.so");
    let needs = Needs { sandbox: objects.all.iter().any(seccomp), ..needs };
    let mut found = Vec::new();
    for object in &objects.all {
        let in_file = cache.hooks.entry((object.file, needs)).or_insert_with(|| Arc::new(search(object, needs)));
        found.extend(in_file.iter().map(|&(vaddr, data)| (object.to_target(vaddr), data)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Where hooks belong in a file, by its own addresses.
fn search(object: &Mapped, needs: Needs) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut add = |vaddr: u64, data: u64| found.push((vaddr, data));
    for site in guarded(object, needs) {
        add(site, action::GUARD);
    }
    if object.object.libc() == Some(Libc::Musl) {
        waiting_functions(object, &mut add);
    }
    if let Some(notify) = object.object.dynamic_linker_notify() {
        add(notify, action::OBJECTS);
    }
    if needs.returns {
        unwinders(object, &mut add);
    }
    found
}

fn guarded(object: &Mapped, needs: Needs) -> Vec<u64> {
    let mut numbers: Vec<u32> = GUARDED.iter().map(|&n| n as u32).collect();
    if needs.returns {
        numbers.extend([libc::SYS_exit as u32, libc::SYS_exit_group as u32]);
    }
    let stackless = |&(at, number): &(u64, u32)| i64::from(number) == libc::SYS_exit && follows_munmap(object, at);
    let mut sites = object.object.signal_syscall_sites(&numbers);
    sites.retain(|site| !stackless(site));
    let mut sites: Vec<u64> = sites.into_iter().map(|(at, _)| at).collect();
    // Calls with the number in a register: Go makes all of its own so, and libseccomp installs its filter by `syscall`.
    if needs.exec && object.object.is_go() || needs.sandbox {
        sites.extend(object.object.raw_syscall_sites());
    }
    sites
}

/// musl makes its cancellable calls at one place with the number in a register; a guard there would slow every `read`
/// down. So the functions are hooked that wait under a mask.
fn waiting_functions(object: &Mapped, add: &mut impl FnMut(u64, u64)) {
    // rdi, rcx, r9, r8: the argument that points to the set, in hardware numbering.
    const FUNCTIONS: [(&str, u64); 4] = [("sigsuspend", 7), ("ppoll", 1), ("pselect", 9), ("epoll_pwait", 8)];
    for (name, register) in FUNCTIONS {
        if let symbols::Lookup::Found(function) = object.object.lookup(name) {
            add(function.addr, action::MASK | register << 32);
        }
    }
}

/// Whether the code before an `exit` has just unmapped the thread's stack (musl's `__unmapself`): no signal can be
/// delivered there any more.
fn follows_munmap(object: &Mapped, vaddr: u64) -> bool {
    const MUNMAP: [u8; 7] = [0xb8, libc::SYS_munmap as u8, 0, 0, 0, 0x0f, 0x05];
    const BEFORE: u64 = 32;
    let code = object.object.code(vaddr.saturating_sub(BEFORE), BEFORE as usize);
    code.is_some_and(|bytes| bytes.windows(MUNMAP.len()).any(|w| w == MUNMAP))
}

fn unwinders(object: &Mapped, add: &mut impl FnMut(u64, u64)) {
    if let UnwinderStatus::Identified(unwinder) = object.object.unwinder() {
        unwinder.entries().into_iter().for_each(|at| add(at, action::UNWIND));
        if let (Some(at), Some(offset)) = (unwinder.set_ip, unwinder.set_ip_cfa_offset) {
            add(at, action::LAND | u64::from(offset) << 32);
        }
        if let Some(at) = unwinder.backtrace {
            add(at, action::UNWIND);
            returns_of(object, at).into_iter().for_each(|ret| add(ret, action::WALKED));
        }
    }
    let jump = if object.object.libc() == Some(Libc::Musl) { action::JUMP_PLAIN } else { action::JUMP_MANGLED };
    object.object.longjmps().into_iter().for_each(|(at, _)| add(at, jump));
}

/// The return instructions of the function at `vaddr`.
fn returns_of(object: &Mapped, vaddr: u64) -> Vec<u64> {
    let Some((start, end)) = object.object.function_bounds(vaddr) else { return Vec::new() };
    let Some(code) = object.object.code(start, (end - start) as usize) else { return Vec::new() };
    let ret = |exit: Exit| if let Exit::Ret { addr } = exit { Some(addr) } else { None };
    exits(code, start).ways.into_iter().filter_map(ret).collect()
}
