//! Who is in a handler or a detour: what a grace period, and all that must not come between, waits for.

use super::Target;
use crate::abi::lanes::{LANE_WINDOW, Lane, WINDOWS, first_lane};
use crate::abi::{ACTIVE, Home, INSTANCES, SITES, SLOT_BYTES, mail};
use crate::control::stop::Held;
use crate::control::table::word_at;
use crate::control::{Result, process};
use core::mem::offset_of;
use isa::x86::Regs;
use std::time::{Duration, Instant};
use sync::primitive::Ordering;

/// How long a grace period may take before a thread in a handler is taken for dead.
const GRACE: Duration = Duration::from_secs(2);
/// How long it is waited for others while a thread waits for us: they may wait for that one.
const QUEUE: Duration = Duration::from_millis(20);

/// Threads that are in a handler, and threads that are in a detour.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    pub(crate) handlers: Vec<u64>,
    /// The lane, and the number of the entry.
    detours: Vec<(usize, u64)>,
}

impl Inside {
    pub(crate) fn is_empty(&self) -> bool {
        self.handlers.is_empty() && self.detours.is_empty()
    }

    /// Forgets those that have left since, or were there another time.
    pub(crate) fn retain(&mut self, now: &Self) {
        self.handlers.retain(|thread| now.handlers.contains(thread));
        self.detours.retain(|entry| now.detours.contains(entry));
    }
}

impl Target {
    /// Who is in a handler or a detour now.
    pub(crate) fn inside(&self) -> Result<Inside> {
        Ok(Inside { handlers: self.in_handlers()?, detours: self.in_detours()? })
    }

    /// Whether a held thread is in a handler or a detour: as long as it is held, it will not leave it.
    pub(crate) fn is_inside(&self, held: &Held) -> Result<bool> {
        let inside = self.inside()?;
        let first = first_lane(held.fs_base());
        let owner = held.fs_base().wrapping_add(1);
        let is_owned = |lane: usize| {
            let at = self.home(offset_of!(Home, lanes)) + (lane * size_of::<Lane>() + offset_of!(Lane, owner)) as u64;
            self.memory.word(at).is_ok_and(|now| now == owner)
        };
        let own = |&(lane, _): &(usize, u64)| (first..first + LANE_WINDOW).contains(&lane) && is_owned(lane);
        Ok(inside.handlers.contains(&u64::from(held.tid().cast_unsigned())) || inside.detours.iter().any(own))
    }

    /// The thread that waits in the mailbox, or makes system calls for us there.
    pub(crate) fn parked(&self) -> Option<u64> {
        let mailbox = &self.agent.shared.bank(self.bank)?.mailbox;
        let waits = matches!(mailbox.state.load(Ordering::Acquire), mail::EVENT | mail::CALL | mail::DONE);
        waits.then(|| mailbox.tid.load(Ordering::Relaxed))
    }

    /// A grace period: see [`kprobes::Host::grace`].
    pub(super) fn wait_for_handlers(&mut self) -> bool {
        // A detour makes no barrier of its own: what it has stored before it looked at the table is seen from here on.
        if self.detours.is_some() && self.synchronize().is_err() && process::is_alive(self.pid) {
            std::thread::sleep(GRACE);
        }
        if self.stands_still {
            return self.inside().is_ok_and(|inside| inside.is_empty());
        }
        let start = Instant::now();
        // One that waits in the mailbox does so for us, on a probe of our own; behind it others may wait.
        let mut parked = false;
        let patience = |parked: bool| if parked { QUEUE } else { GRACE };
        let mut waiting = self.inside().unwrap_or_default();
        // Most are out in an instant.
        let pauses = [Duration::ZERO, Duration::ZERO, Duration::from_micros(20)];
        let mut pauses = pauses.into_iter().chain(core::iter::repeat(Duration::from_micros(200)));
        loop {
            if let Some(tid) = self.parked() {
                parked = true;
                waiting.handlers.retain(|waits| *waits != tid);
            }
            if waiting.is_empty() || start.elapsed() > patience(parked) {
                return !parked;
            }
            pauses.next().filter(|pause| !pause.is_zero()).map_or_else(std::thread::yield_now, std::thread::sleep);
            waiting.retain(&self.inside().unwrap_or_default());
        }
    }

    /// Threads that are in a handler.
    fn in_handlers(&self) -> Result<Vec<u64>> {
        let mut bytes = vec![0u8; 8 * ACTIVE];
        self.memory.read(self.home(offset_of!(Home, active)), &mut bytes)?;
        let words = bytes.chunks_exact(8).filter_map(|b| b.try_into().ok()).map(u64::from_le_bytes);
        Ok(words.filter(|&w| w != 0).collect())
    }

    /// Threads that are in a detour: which lane, and the number of the entry. One that was left by `longjmp` is passed over.
    fn in_detours(&self) -> Result<Vec<(usize, u64)>> {
        if self.detours.is_none() {
            return Ok(Vec::new());
        }
        let mut inside = Vec::new();
        for window in self.lane_windows()? {
            let first = window * LANE_WINDOW;
            let mut bytes = [0u8; size_of::<Lane>() * LANE_WINDOW];
            self.memory.read(self.home(offset_of!(Home, lanes)) + (first * size_of::<Lane>()) as u64, &mut bytes)?;
            for (lane, index) in bytes.chunks_exact(size_of::<Lane>()).zip(first..) {
                let frame = word_at(lane, offset_of!(Lane, frame));
                if frame != 0 && self.is_detour(frame) {
                    inside.push((index, word_at(lane, offset_of!(Lane, entries))));
                }
            }
        }
        Ok(inside)
    }

    /// The windows in which threads have lanes.
    fn lane_windows(&self) -> Result<Vec<usize>> {
        let mut bytes = [0u8; WINDOWS / 8];
        self.memory.read(self.home(offset_of!(Home, lane_windows)), &mut bytes)?;
        let is_used = |window: &usize| bytes.get(window / 8).is_some_and(|byte| byte >> (window % 8) & 1 != 0);
        Ok((0..WINDOWS).filter(is_used).collect())
    }

    /// Whether what lies at `frame`, on a thread's stack, is what a detour has put there: see `trap::lanes`.
    fn is_detour(&self, frame: u64) -> bool {
        let word = |at: u64| self.memory.word(at).ok();
        let behind = frame.wrapping_add(size_of::<Regs>() as u64);
        let (Some(back), Some(site)) = (word(behind), word(behind.wrapping_add(8))) else { return false };
        let in_slot = |&(base, size, _): &(u64, u64, u64)| (base..base + size).contains(&back);
        if self.memory.word(self.home(offset_of!(Home, return_entry))).is_ok_and(|entry| entry == back) {
            return site < INSTANCES as u64;
        }
        site < SITES as u64 && back % SLOT_BYTES == 0 && self.arenas.iter().any(in_slot)
    }
}
