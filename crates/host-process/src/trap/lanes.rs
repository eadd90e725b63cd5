//! Which lane is the running thread's, and whether it is in a detour: see [`crate::abi::lanes`].

use super::memory::read;
use crate::abi::lanes::{LANE_WINDOW, LIGHT, Lane, NO_ID, NO_ROW, TID_OFFSETS, WINDOWS, first_lane};
use crate::abi::{Bank, Home, Payload, ROWS};
use arch::x86::handlers::Running;
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
    window
        .iter()
        .find(|lane| lane.owner.load(Ordering::Relaxed) == owner)
        .or_else(|| claim(home, first / LANE_WINDOW, window, owner))
}

/// What tells this thread from others that may be in a detour: 1 where there are none.
pub(crate) fn thread(home: &Home) -> u64 {
    if home.has_lanes.load(Ordering::Relaxed) == 0 {
        return 1;
    }
    // SAFETY: as in `here`.
    unsafe { cpu::fs_base() }.wrapping_add(1)
}

/// A lane that nobody has. It stays the owner's: where a thread has ended, another one's block will be.
#[cold]
fn claim(home: &Home, number: usize, window: &'static [Lane], owner: u64) -> Option<&'static Lane> {
    // First: who looks for threads in detours must not pass this one over.
    home.lane_windows.get(number / 64)?.fetch_or(1 << (number % 64), Ordering::SeqCst);
    let take = |lane: &&Lane| lane.owner.compare_exchange(0, owner, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    window.iter().find(take)
}

/// No thread is in a detour: in a forked child, where those of the parent's do not exist.
pub(crate) fn adopt(home: &Home) {
    let is_used = |window: &usize| {
        let word = home.lane_windows.get(window / 64).map_or(0, |word| word.load(Ordering::Relaxed));
        word >> (window % 64) & 1 != 0
    };
    // The others are zero, and need not become pages of the child's own.
    let lanes =
        (0..WINDOWS).filter(is_used).flat_map(|window| home.lanes.iter().skip(window * LANE_WINDOW).take(LANE_WINDOW));
    for lane in lanes {
        let Lane { owner, frame, calling, row, cells, tid, named, .. } = lane;
        [owner, frame, calling, row, cells, tid, named].iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
    home.rows_used.store(0, Ordering::Relaxed);
    home.lane_windows.iter().for_each(|word| word.store(0, Ordering::Relaxed));
}

/// What the running thread keeps of the light handler that it is in, with its stack pointer at `sp`. One that was left for
/// good is not meant: what lies at its detour's frame is something else, or the stack has been taken back to above it.
pub(crate) fn in_light_handler(home: &'static Home, sp: u64) -> Option<&'static Running> {
    let lane = here(home)?;
    let running = running(home, lane)?;
    let frame = lane.frame.load(Ordering::Relaxed);
    (sp < frame && interrupted(home, frame) != 0).then_some(running)
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
            cpu::add_one(&lane.entries);
            if lane.calling.load(Ordering::Relaxed) == LIGHT {
                // It was left for good, with the detour that had called it.
                lane.calling.store(0, Ordering::Relaxed);
            }
        }
        // Before whatever control takes away is looked at. The processor is told by control, with `membarrier`, before
        // that looks who is in a detour.
        compiler_fence(Ordering::SeqCst);
        Self { lane, outer }
    }

    pub(crate) fn lane(&self) -> &'static Lane {
        self.lane
    }

    /// Where this thread alone counts the hits of an event; `None` when it has no such place. `epoch` was read before `bank`.
    #[inline(always)]
    pub(crate) fn cell<'b>(&self, home: &Home, (epoch, bank): (u32, &'b Bank), id: u32) -> Option<&'b AtomicU64> {
        let row = match self.lane.row.load(Ordering::Relaxed) {
            0 => self.take_row(home),
            row => row,
        };
        let row = row.wrapping_sub(1) as usize;
        let cell = bank.hits.get(row)?.get(id as usize)?;
        if bank.rows.load(Ordering::Relaxed) as usize <= row {
            bank.rows.fetch_max(row as u32 + 1, Ordering::Relaxed);
        }
        let cells = (&raw const *cell) as u64 - u64::from(id) * size_of::<AtomicU64>() as u64;
        if self.outer == 0 && self.lane.cells.load(Ordering::Relaxed) != cells {
            self.note_cells(epoch, cells);
        }
        Some(cell)
    }

    /// From now on the thread may count without coming here: see `detour::entry`.
    #[cold]
    #[inline(never)]
    fn note_cells(&self, epoch: u32, cells: u64) {
        self.lane.cells.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.lane.epoch.store(u64::from(epoch), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.lane.cells.store(cells, Ordering::Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn take_row(&self, home: &Home) -> u64 {
        let taken = home.rows_used.fetch_add(1, Ordering::Relaxed) as usize;
        if taken >= ROWS {
            home.rows_used.store(ROWS as u32, Ordering::Relaxed);
        }
        let row = if taken < ROWS { taken as u64 + 1 } else { NO_ROW };
        // A signal's handler may have taken one since: that is lost, and no harm.
        self.lane.row.store(row, Ordering::Relaxed);
        row
    }

    /// The thread's id, without a system call: if the C library keeps it where it was found in another thread, and this
    /// one's control block has told the truth once. In a `vfork` child it is the parent's.
    #[inline(always)]
    pub(crate) fn tid(&self) -> u64 {
        let known = self.lane.tid.load(Ordering::Relaxed);
        if known != 0 && known != NO_ID {
            let at = self.lane.tid_at.load(Ordering::Relaxed);
            // SAFETY: the block has this field, as was seen when `known` was set, and the thread runs with it. The C
            // library writes it when it makes the thread, or when a child is forked: never while this runs.
            let now = unsafe { (at as *const u32).read() };
            if u64::from(now) == known {
                return known;
            }
        }
        self.ask_tid()
    }

    #[cold]
    #[inline(never)]
    fn ask_tid(&self) -> u64 {
        let tid = super::modules::thread();
        let block = self.lane.owner.load(Ordering::Relaxed).wrapping_sub(1);
        let told = |at: &u64| {
            let mut word = [0; 4];
            block != 0 && read(tid, *at, &mut word) && u64::from(u32::from_le_bytes(word)) == tid
        };
        let at = TID_OFFSETS.iter().map(|offset| block.wrapping_add(*offset)).find(told);
        // The id says that the rest is right, also to a signal's handler that comes in between.
        self.lane.tid.store(NO_ID, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.lane.named.store(0, Ordering::Relaxed);
        self.lane.tid_at.store(at.unwrap_or(0), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.lane.tid.store(if at.is_some() { tid } else { NO_ID }, Ordering::Relaxed);
        tid
    }

    /// The thread's name, as it was some milliseconds ago at most; `ask` makes a system call.
    pub(crate) fn name(&self, now: u64, ask: impl FnOnce() -> [u64; 2]) -> [u64; 2] {
        /// In ticks of the time stamp counter: about 5 ms.
        const FRESH: u64 = 1 << 24;
        let named = self.lane.named.load(Ordering::Relaxed);
        let tid = self.lane.tid.load(Ordering::Relaxed);
        if self.outer != 0 || tid == 0 || tid == NO_ID {
            return ask();
        }
        if named == 0 || now.wrapping_sub(named) > FRESH {
            let name = ask();
            self.lane.name.iter().zip(name).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
            self.lane.named.store(now, Ordering::Relaxed);
            return name;
        }
        self.lane.name.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    /// Where to put the fetched arguments of a record; `None` while an interrupted detour may be using it.
    pub(crate) fn payload<'h>(&self, home: &'h Home) -> Option<&'h Payload> {
        home.lane_payloads.get(index(home, self.lane)).filter(|_| self.outer == 0)
    }

    /// Runs `f`, which calls a light handler.
    #[inline(always)]
    pub(crate) fn lightly<R>(&self, f: impl FnOnce() -> R) -> R {
        // Not a swap, which is a locked instruction: a signal's handler in between leaves it as it was.
        let was = self.lane.calling.load(Ordering::Relaxed);
        self.lane.calling.store(LIGHT, Ordering::Relaxed);
        let result = f();
        self.lane.calling.store(was, Ordering::Relaxed);
        result
    }
}

/// Which lane of a process's it is.
fn index(home: &Home, lane: &Lane) -> usize {
    ((&raw const *lane) as usize - home.lanes.as_ptr() as usize) / size_of::<Lane>()
}

/// What a thread keeps of the light handler that it calls, if it is in one.
pub(crate) fn running<'h>(home: &'h Home, lane: &Lane) -> Option<&'h Running> {
    let is_calling = lane.calling.load(Ordering::Relaxed) == LIGHT;
    home.lane_running.get(index(home, lane)).filter(|_| is_calling)
}

impl Drop for Stay {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.lane.frame.store(self.outer, Ordering::Release);
    }
}

/// The frame of a detour that this one has interrupted; 0 when the other one was left for good (`longjmp` out of a
/// signal's handler): then something else is there by now, or nothing.
#[cold]
#[inline(never)]
fn interrupted(home: &Home, frame: u64) -> u64 {
    if is_detour(home, frame, |address, out| read(super::modules::thread(), address, out)) { frame } else { 0 }
}

/// Whether what lies at `frame` are the registers that a detour has saved: it has pushed the index of a site, and called
/// us from before the copy of that site's instructions; or a stub, which has pushed an instance's number.
pub(crate) fn is_detour(home: &Home, frame: u64, read: impl FnOnce(u64, &mut [u8]) -> bool) -> bool {
    let mut bytes = [0u8; 16];
    if !read(frame.wrapping_add(size_of::<Regs>() as u64), &mut bytes) {
        return false;
    }
    let (low, high) = bytes.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().rfold(0u64, |word, &byte| word << 8 | u64::from(byte));
    let (back, site) = (word(low), word(high));
    if back == home.return_entry.load(Ordering::Relaxed) {
        return site < home.instances.len() as u64;
    }
    let table = super::host::table(home);
    let entry = table.find(back).filter(|entry| entry & hit::SLOT != 0);
    let address = |index: u64| Some(home.sites.get(usize::try_from(index).ok()?)?.address.load(Ordering::Relaxed));
    entry.and_then(|entry| address(entry & (hit::SLOT - 1))).is_some_and(|of| address(site) == Some(of))
}
