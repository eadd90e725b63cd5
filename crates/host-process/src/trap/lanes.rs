//! Which lane is the running thread's, and whether it is in a detour: see [`crate::abi::lanes`].

use super::memory::read;
use crate::abi::lanes::{LANE_WINDOW, Lane, first_lane};
use crate::abi::{Home, Payload};
use core::sync::atomic::compiler_fence;
use isa::x86::Regs;
use sync::primitive::{AtomicU64, Ordering};

/// The running thread's lane; `None` where threads have none, or all that it may have are in use.
pub(crate) fn here(home: &'static Home) -> Option<&'static Lane> {
    if home.has_lanes.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: the tool has said that there are lanes, which it does where the processor and the kernel have the instruction.
    let base = unsafe { cpu::fs_base() };
    let first = first_lane(base);
    let window = home.lanes.get(first..first + LANE_WINDOW)?;
    let owner = base.wrapping_add(1);
    window.iter().find(|lane| lane.owner.load(Ordering::Relaxed) == owner).or_else(|| claim(window, owner))
}

/// A lane that nobody has; or else one whose owner is in no detour, and has perhaps ended.
#[cold]
fn claim(window: &'static [Lane], owner: u64) -> Option<&'static Lane> {
    let take =
        |lane: &Lane, from: u64| lane.owner.compare_exchange(from, owner, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    let free = window.iter().find(|lane| take(lane, 0));
    let idle = |lane: &&Lane| [&lane.frame, &lane.calling].iter().all(|word| word.load(Ordering::Relaxed) == 0);
    free.or_else(|| window.iter().filter(idle).find(|lane| take(lane, lane.owner.load(Ordering::Relaxed))))
}

/// No thread is in a detour: in a forked child, where those of the parent's do not exist.
pub(crate) fn adopt(home: &Home) {
    for lane in &home.lanes {
        let Lane { owner, frame, calling, entries: _, left: _ } = lane;
        [owner, frame, calling].iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

/// A thread is in a detour until this is dropped.
#[derive(Debug)]
pub(crate) struct Stay {
    lane: &'static Lane,
    /// The frame of the detour that was interrupted, by a signal whose handler has come to this one; or 0.
    outer: u64,
}

impl Stay {
    /// The thread whose lane this is enters a detour, which has saved its registers in `frame`.
    pub(crate) fn begin(home: &'static Home, lane: &'static Lane, frame: &Regs) -> Self {
        let outer = lane.frame.load(Ordering::Relaxed);
        let outer = if outer == 0 { 0 } else { interrupted(home, outer) };
        lane.frame.store((&raw const *frame) as u64, Ordering::Relaxed);
        if outer == 0 {
            add(&lane.entries);
        }
        // Before whatever control takes away is looked at. The processor is told by control, with `membarrier`, before
        // that looks who is in a detour.
        compiler_fence(Ordering::SeqCst);
        Self { lane, outer }
    }

    pub(crate) fn lane(&self) -> &'static Lane {
        self.lane
    }

    /// Where to put the fetched arguments of a record; `None` while an interrupted detour may be using it.
    pub(crate) fn payload<'h>(&self, home: &'h Home) -> Option<&'h Payload> {
        let index = ((&raw const *self.lane) as usize - home.lanes.as_ptr() as usize) / size_of::<Lane>();
        home.lane_payloads.get(index).filter(|_| self.outer == 0)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.lane.frame.store(self.outer, Ordering::Release);
    }
}

/// Only one thread writes it.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// The frame of a detour that this one has interrupted; 0 when the other one was left for good (`longjmp` out of a
/// signal's handler): then something else is there by now, or nothing.
#[cold]
#[inline(never)]
fn interrupted(home: &Home, frame: u64) -> u64 {
    if is_detour(home, frame, |address, out| read(super::modules::thread(), address, out)) { frame } else { 0 }
}

/// Whether what lies at `frame` are the registers that a detour has saved: it has pushed the index of a site, and called
/// us from before the copy of that site's instructions.
pub(crate) fn is_detour(home: &Home, frame: u64, read: impl FnOnce(u64, &mut [u8]) -> bool) -> bool {
    let mut bytes = [0u8; 16];
    if !read(frame.wrapping_add(size_of::<Regs>() as u64), &mut bytes) {
        return false;
    }
    let (low, high) = bytes.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().rfold(0u64, |word, &byte| word << 8 | u64::from(byte));
    let (back, site) = (word(low), word(high));
    let table = sync::Table::new(&home.buckets);
    let entry = table.find(back).filter(|entry| entry & hit::SLOT != 0);
    let address = |index: u64| Some(home.sites.get(usize::try_from(index).ok()?)?.address.load(Ordering::Relaxed));
    entry.and_then(|entry| address(entry & (hit::SLOT - 1))).is_some_and(|of| address(site) == Some(of))
}
