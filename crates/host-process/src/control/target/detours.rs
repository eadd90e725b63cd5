//! What jumps and returns lead to: pads, stubs, the jump to the agent.

use super::{Target, map};
use crate::abi::{Home, INSTANCES, STUB_BYTES, STUB_STRIDE};
use crate::control::Result;
use crate::control::maps::{HIGHEST, LOWEST, is_free};
use core::cell::RefCell;
use core::mem::offset_of;
use core::ops::Range;
use isa::x86::JUMP_LEN;
use kprobes::Pads;

/// Address space that is mapped at once for pads. Only the pages that have some take memory.
const PAD_AREA: u64 = 1 << 20;

/// Whether programs may read the fs base by an instruction: `AT_HWCAP2`, `HWCAP2_FSGSBASE`. The target has our kernel.
pub(super) fn has_fs_base() -> bool {
    const FSGSBASE: u64 = 1 << 1;
    // SAFETY: it has no effect.
    let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    capabilities & FSGSBASE != 0
}

/// `jmp [rip]`, and where to.
pub(super) fn far_jump(to: u64) -> Vec<u8> {
    [0xFF, 0x25, 0, 0, 0, 0].into_iter().chain(to.to_le_bytes()).collect()
}

impl Target {
    /// Writes the stubs, before the first is needed: code that pushes the instance's number and jumps to the agent, or a
    /// breakpoint where there are no detours.
    pub(super) fn write_stubs(&self) -> Result<()> {
        if self.home_half(offset_of!(Home, has_stubs))? != 0 {
            return Ok(());
        }
        let area = self.memory.word(self.home(offset_of!(Home, stubs)))?;
        let hub = area + STUB_BYTES;
        let stub = |id: u32| {
            let at = area + u64::from(id) * STUB_STRIDE;
            let mut code = [isa::x86::BREAKPOINT; STUB_STRIDE as usize];
            if self.detours.is_some() {
                let jump = isa::x86::jump(at + 5, hub).unwrap_or_default();
                let push = [0x68].into_iter().chain(id.to_le_bytes());
                code.iter_mut().zip(push.chain(jump)).for_each(|(to, byte)| *to = byte);
            }
            code
        };
        let code: Vec<u8> = (0..INSTANCES as u32).flat_map(stub).collect();
        let entry = self.memory.word(self.home(offset_of!(Home, return_entry)))?;
        self.memory.write(hub, &far_jump(entry))?;
        self.memory.write(area, &code)?;
        self.set_home_half(offset_of!(Home, has_stubs), 1)
    }

    /// Room for a jump, at an address that `fits` gives.
    pub(super) fn take_pad(&mut self, address: u64, fits: &dyn Fn(Range<u64>) -> Option<u64>) -> Option<u64> {
        // So far a jump leads from there to a detour on the other side.
        const REACH: u64 = 1 << 30;
        // Neighbours begin to look at the same place, and so their pads are close together.
        const BLOCK: u64 = 1 << 20;
        let range = address.saturating_sub(REACH).max(LOWEST)..address.saturating_add(REACH).min(HIGHEST);
        let lowest = fits(range.clone()).unwrap_or(range.end);
        let mut pads = core::mem::replace(&mut self.pads, Pads::new(JUMP_LEN));
        let this = RefCell::new(&mut *self);
        let mut take = |range| pads.take(range, fits, |page| this.borrow_mut().allocate_pads(page));
        let pad = take(lowest.next_multiple_of(BLOCK)..range.end).or_else(|| take(range));
        self.pads = pads;
        pad
    }

    /// Makes the page of a pad executable memory of ours, and others around it, if nothing else is there.
    fn allocate_pads(&mut self, page: u64) -> bool {
        const PAGE: u64 = 1 << 12;
        let within = |area: &Range<u64>| area.contains(&page);
        if self.pad_areas.iter().any(within) {
            return true;
        }
        let Ok(maps) = self.maps() else { return false };
        let around = page & !(PAD_AREA - 1);
        let wanted = [around..around + PAD_AREA, page..page + PAGE];
        let Some(area) = wanted.into_iter().find(|area| is_free(maps, area)) else { return false };
        self.maps = None;
        let protection = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let exact = libc::MAP_FIXED_NOREPLACE as u64;
        let bytes = area.end - area.start;
        let mapped = self.with_remote(|remote| map(remote, area.start, bytes, protection, exact));
        if mapped.is_ok_and(|at| at == area.start) {
            self.pad_areas.push(area);
        }
        self.pad_areas.iter().any(within)
    }
}
