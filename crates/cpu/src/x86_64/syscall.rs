//! Raw system calls.

use core::arch::asm;

/// System call numbers (Linux `arch/x86/entry/syscalls/syscall_64.tbl`).
#[expect(missing_docs, reason = "the names are the kernel's")]
pub mod nr {
    pub const OPEN: u64 = 2;
    pub const CLOSE: u64 = 3;
    pub const RT_SIGACTION: u64 = 13;
    pub const RT_SIGPROCMASK: u64 = 14;
    pub const PWRITE64: u64 = 18;
    pub const SCHED_YIELD: u64 = 24;
    pub const GETPID: u64 = 39;
    pub const PTRACE: u64 = 101;
    pub const GETPPID: u64 = 110;
    pub const EXECVE: u64 = 59;
    pub const EXIT: u64 = 60;
    pub const KILL: u64 = 62;
    pub const RT_SIGSUSPEND: u64 = 130;
    pub const PRCTL: u64 = 157;
    pub const GETTID: u64 = 186;
    pub const TKILL: u64 = 200;
    pub const FUTEX: u64 = 202;
    pub const EXIT_GROUP: u64 = 231;
    pub const TGKILL: u64 = 234;
    pub const PSELECT6: u64 = 270;
    pub const PPOLL: u64 = 271;
    pub const EPOLL_PWAIT: u64 = 281;
    pub const RT_TGSIGQUEUEINFO: u64 = 297;
    pub const PROCESS_VM_READV: u64 = 310;
    pub const KCMP: u64 = 312;
    pub const SECCOMP: u64 = 317;
    pub const EXECVEAT: u64 = 322;
    pub const EPOLL_PWAIT2: u64 = 441;
}

/// Makes a system call and returns what the kernel returns: an error is a value in `-4095..0`.
///
/// # Safety
///
/// The call itself must be one that is sound with these arguments: pointers that the kernel writes through must be
/// valid for that, and the call must not take memory away that Rust code still uses.
///
/// ```
/// use cpu::{nr, syscall};
///
/// // SAFETY: takes nothing and changes nothing.
/// let pid = unsafe { syscall(nr::GETPID, [0; 6]) };
/// assert_eq!(pid, std::process::id().into());
///
/// const EBADF: i64 = 9;
/// // SAFETY: no file has this number.
/// let closed = unsafe { syscall(nr::CLOSE, [u64::MAX, 0, 0, 0, 0, 0]) };
/// assert_eq!(closed, -EBADF);
/// ```
#[inline]
pub unsafe fn syscall(number: u64, args: [u64; 6]) -> i64 {
    let result: i64;
    let [a, b, c, d, e, f] = args;
    // SAFETY: the `syscall` instruction clobbers rcx and r11, which are declared, and nothing else but rax; it does not
    // use the stack. What the call does is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}
