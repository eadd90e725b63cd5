//! The shared mappings of a trace, one for each program that was entered, and what is common to them: the heart that
//! beats for all, the bell that any of them may ring, the banks that children claim.

use super::inject::Site as AgentSite;
use super::mail;
use super::shared::SharedMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use sync::primitive::Ordering;

/// How often the heart beats.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);
/// Without `futex_waitv` (Linux 5.16), several bells are looked at this often.
const GLANCE: Duration = Duration::from_millis(1);
/// How many bells `futex_waitv` takes.
const BELLS: usize = 128;
const SYS_FUTEX_WAITV: libc::c_long = 449;
const FUTEX_32: u32 = 2;

/// One mapping.
#[derive(Debug)]
struct Family {
    agent: AgentSite,
    /// The bell when its banks were last looked at.
    seen: u32,
}

/// All mappings.
#[derive(Debug, Default)]
pub(crate) struct Families {
    all: Vec<Family>,
    /// The files of all that ever were: what their processes left behind is looked for at the end.
    files: Vec<(i32, i32, u64)>,
    /// Children that found no free bank in mappings that were let go.
    uncounted: u64,
    hearts: Arc<Mutex<Vec<Weak<SharedMap>>>>,
    stop: Arc<AtomicBool>,
}

/// Mappings without a known process that are kept: a child that was forked from one, and has not hit a probe yet, may
/// claim a bank there.
const IDLE: usize = 64;

impl Families {
    /// A new mapping: its heart begins to beat.
    pub(crate) fn add(&mut self, agent: AgentSite) {
        if self.all.is_empty() {
            self.start_heart();
        }
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&agent.shared));
        self.files.push(agent.shared.file());
        self.all.push(Family { agent, seen: 0 });
    }

    /// The files of all mappings, device and inode.
    pub(crate) fn files(&self) -> &[(i32, i32, u64)] {
        &self.files
    }

    /// Lets go of the oldest mappings that nobody is known to use.
    pub(crate) fn prune(&mut self, used: impl Fn(&Arc<SharedMap>) -> bool) {
        let idle: Vec<usize> =
            (0..self.all.len()).filter(|&i| self.all.get(i).is_some_and(|f| !used(&f.agent.shared))).collect();
        for index in idle.iter().rev().skip(IDLE) {
            self.uncounted += uncounted(&self.all.remove(*index));
        }
        let mut hearts = self.hearts.lock().unwrap_or_else(PoisonError::into_inner);
        hearts.retain(|h| h.strong_count() > 0);
    }

    /// Banks that are claimed, of families whose bell has rung: where, which, and by which process.
    pub(crate) fn claims(&mut self) -> Vec<(AgentSite, usize, i32)> {
        let mut claims = Vec::new();
        for family in &mut self.all {
            let bell = family.agent.shared.header().doorbell.load(Ordering::Acquire);
            if core::mem::replace(&mut family.seen, bell) == bell {
                continue;
            }
            for (index, bank) in family.agent.shared.banks() {
                let pid = bank.pid.load(Ordering::Acquire) as i32;
                if pid != 0 {
                    claims.push((family.agent.clone(), index, pid));
                }
            }
        }
        claims
    }

    /// Children that found no free bank.
    pub(crate) fn uncounted(&self) -> u64 {
        self.uncounted + self.all.iter().map(uncounted).sum::<u64>()
    }

    /// Sleeps until a bell rings, or `time` is over. `busy` says that there is something to do already.
    pub(crate) fn wait(&self, time: Duration, busy: impl Fn() -> bool) {
        let bells: Vec<_> = self.all.iter().rev().take(BELLS).map(|f| &f.agent.shared.header().doorbell).collect();
        let values: Vec<u32> = bells.iter().map(|b| b.load(Ordering::Acquire)).collect();
        let rung = self.all.iter().rev().zip(&values).any(|(f, &v)| f.seen != v);
        if rung || busy() {
            return;
        }
        match bells.as_slice() {
            [] => std::thread::sleep(time),
            [bell] => mail::wait(bell, values.first().copied().unwrap_or(0), time),
            _ if !wait_any(&bells, &values, time) => std::thread::sleep(GLANCE.min(time)),
            _ => {}
        }
    }

    fn start_heart(&self) {
        let (hearts, stop) = (self.hearts.clone(), self.stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for shared in hearts.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
                    shared.header().heartbeat.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(HEARTBEAT);
            }
        });
    }
}

fn uncounted(family: &Family) -> u64 {
    family.agent.shared.header().unbanked.load(Ordering::Relaxed)
}

impl Drop for Families {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// `struct futex_waitv`.
#[repr(C)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// Waits for any of several futexes; false when the kernel cannot.
fn wait_any(bells: &[&sync::primitive::AtomicU32], values: &[u32], time: Duration) -> bool {
    let waiter = |(bell, &value): (&&sync::primitive::AtomicU32, &u32)| Waiter {
        value: u64::from(value),
        address: (&raw const **bell) as u64,
        flags: FUTEX_32,
        reserved: 0,
    };
    let waiters: Vec<Waiter> = bells.iter().zip(values).map(waiter).collect();
    let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec is written; the waiters and the timeout live across the second call, which only reads.
    let result = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until);
        let nanoseconds = until.tv_nsec + i64::from(time.subsec_nanos());
        until.tv_sec += time.as_secs().cast_signed() + nanoseconds / 1_000_000_000;
        until.tv_nsec = nanoseconds % 1_000_000_000;
        let clock = libc::CLOCK_MONOTONIC;
        libc::syscall(SYS_FUTEX_WAITV, waiters.as_ptr(), waiters.len(), 0, &raw const until, clock)
    };
    result >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}
