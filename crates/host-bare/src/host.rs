//! Control's host: the same image, so everything is one store away.

use crate::trap::{KernelSpace, detour};
use crate::{Engine, Kernel};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use arch::x86::X86;
use core::ops::Range;
use hit::{Probe, SLOT_BYTES, Site};
use isa::x86::{BREAKPOINT, JUMP_LEN};
use kprobes::{Error, Function, Isa, Pads, ProbeData, ReturnScheme, SiteData, Stepping};
use sync::Table;
use sync::primitive::{Ordering, fence};

/// Bytes of executable memory that are asked for at a time.
const ARENA_BYTES: u64 = 64 << 10;

/// The kernel's text and the engine's tables, for control.
#[derive(Debug)]
pub(crate) struct Target<K: 'static> {
    engine: &'static Engine<K>,
    /// The free rest of the latest area of slots.
    slots: Range<u64>,
    programs_used: usize,
    pub(crate) stepping: Stepping,
    /// Which bytes of text are ours, and what they have replaced.
    planted: BTreeMap<u64, u8>,
    /// Addresses of slots and stubs.
    ours: Vec<Range<u64>>,
    /// Memory for jumps that jumps lead to.
    pads: Pads,
}

impl<K: Kernel> Target<K> {
    pub(crate) fn new(engine: &'static Engine<K>) -> Self {
        let stubs = engine.stubs..engine.stubs + engine.tables.instances.len() as u64;
        Self {
            engine,
            slots: 0..0,
            programs_used: 0,
            stepping: Stepping::default(),
            planted: BTreeMap::new(),
            ours: vec![stubs],
            pads: Pads::new(JUMP_LEN),
        }
    }

    /// No breakpoint of ours stands there any more.
    pub(crate) fn forget(&mut self, range: Range<u64>) {
        self.planted.retain(|address, _| !range.contains(address));
    }

    fn place<'a, T>(places: &'a [T], index: u32, what: &'static str) -> Result<&'a T, Error> {
        places.get(index as usize).ok_or(Error::Full { what, limit: places.len() })
    }

    fn site(&self, index: u32) -> Result<&Site, Error> {
        Self::place(&self.engine.tables.sites, index, "sites")
    }

    fn probe(&self, index: u32) -> Result<&Probe, Error> {
        Self::place(&self.engine.tables.probes, index, "probes")
    }

    /// So many slots that follow each other.
    fn slots(&mut self, count: u64) -> Result<u64, Error> {
        let bytes = count * SLOT_BYTES;
        if self.slots.end - self.slots.start < bytes {
            let full = Error::Full { what: "bytes of executable memory for slots", limit: ARENA_BYTES as usize };
            let base = K::allocate_code(ARENA_BYTES as usize).ok_or(full)?;
            self.slots = base..base + ARENA_BYTES;
            self.ours.push(self.slots.clone());
        }
        let slot = self.slots.start;
        self.slots.start += bytes;
        Ok(slot)
    }

    /// Memory as it is without our breakpoints and jumps.
    fn original(&self, start: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut code = vec![0; length];
        if !K::read(start, &mut code) {
            return Err(unreadable(start));
        }
        for (&at, &byte) in self.planted.range(start..start + length as u64) {
            if let Some(to) = code.get_mut((at - start) as usize) {
                *to = byte;
            }
        }
        Ok(code)
    }

    fn write(address: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = K::write_text(address, bytes);
        written.then_some(()).ok_or_else(|| Error::Host(format!("text at {address:#x} cannot be written")))
    }

    /// Writes one byte of text, and keeps what stood there before the first one that was ours.
    fn write_byte(&mut self, address: u64, byte: u8) -> Result<(), Error> {
        let mut old = [0];
        if !K::read(address, &mut old) {
            return Err(unreadable(address));
        }
        Self::write(address, &[byte])?;
        if *self.planted.entry(address).or_insert(old[0]) == byte {
            self.planted.remove(&address);
        }
        Ok(())
    }
}

fn unreadable(address: u64) -> Error {
    Error::Host(format!("memory at {address:#x} cannot be read"))
}

impl<K: Kernel> kprobes::Host for Target<K> {
    type Isa = X86<KernelSpace<K>>;

    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Error> {
        K::read(address, out).then_some(()).ok_or_else(|| unreadable(address))
    }

    fn function(&mut self, address: u64) -> Result<Function, Error> {
        if self.ours.iter().any(|range| range.contains(&address)) || K::is_noprobe(address) {
            return Err(Error::Ours { address });
        }
        if !K::is_text(address) {
            return Err(Error::NotText { address });
        }
        let function = K::symbol_at(address).filter(|s| s.is_function && s.size > 0);
        let function = function.ok_or(Error::UnknownFunction { address })?;
        let code = self.original(function.address, function.size as usize)?;
        // The code is read from where it runs: behind somebody else's breakpoint nothing says where instructions begin.
        let boundaries = <X86<KernelSpace<K>> as Isa>::boundaries(&code, function.address);
        let before = boundaries.iter().take_while(|&&at| at < address);
        match before.copied().find(|at| code.get((at - function.address) as usize) == Some(&BREAKPOINT)) {
            Some(address) => Err(Error::ForeignBreakpoint { address }),
            None => Ok(Function { start: function.address, code }),
        }
    }

    fn return_scheme(&mut self, _: u64) -> Result<ReturnScheme, Error> {
        Ok(ReturnScheme::Stub)
    }

    fn stepping(&self) -> Stepping {
        self.stepping
    }

    fn publishes_slots(&self) -> bool {
        true
    }

    fn slot(&mut self, _: u64) -> Result<u64, Error> {
        self.slots(1)
    }

    fn has_detours(&self) -> bool {
        true
    }

    fn detour_entry(&mut self, _: u64) -> Result<u64, Error> {
        Ok(detour::entry::<K> as *const () as u64)
    }

    fn may_displace(&mut self, mut range: Range<u64>) -> bool {
        range.all(|address| K::is_text(address) && !K::is_noprobe(address))
    }

    fn detour_slot(&mut self, _: u64, site: u32) -> Result<u64, Error> {
        // The last quarter is for probes: they work without a jump.
        let limit = self.engine.tables.sites.len() / 4 * 3;
        if site as usize >= limit {
            return Err(Error::Full { what: "sites with jumps", limit });
        }
        self.slots(2)
    }

    fn pad(&mut self, address: u64, fits: &dyn Fn(Range<u64>) -> Option<u64>) -> Result<u64, Error> {
        self.pads.take(K::code_range(), fits, K::allocate_code_at).ok_or(Error::NoDetours { address })
    }

    fn write_slot(&mut self, slot: u64, code: &[u8]) -> Result<(), Error> {
        Self::write(slot, code)
    }

    fn store_program(&mut self, code: &[u8]) -> Result<u32, Error> {
        let at = self.programs_used;
        let programs = &self.engine.tables.programs;
        // SAFETY: bytes from `programs_used` on were given to nobody, and control is one.
        if !unsafe { programs.append(at, code) } {
            return Err(Error::Full { what: "bytes of fetch programs", limit: programs.capacity() });
        }
        self.programs_used = at + code.len();
        Ok(at as u32)
    }

    fn store_site(&mut self, index: u32, data: &SiteData) -> Result<(), Error> {
        data.store(self.site(index)?, self.engine.tables.marks.get(index as usize));
        Ok(())
    }

    fn publish(&mut self, address: u64, entry: u64) -> Result<(), Error> {
        let buckets = &self.engine.tables.buckets;
        let full = Error::Full { what: "buckets of the probe table", limit: buckets.len() };
        Table::new(buckets).insert(address, entry).then_some(()).ok_or(full)
    }

    fn store_probe(&mut self, index: u32, data: &ProbeData) -> Result<(), Error> {
        data.store(self.probe(index)?);
        Ok(())
    }

    fn set_state(&mut self, index: u32, state: u32) -> Result<(), Error> {
        self.probe(index)?.state.store(state, Ordering::Release);
        Ok(())
    }

    fn set_first(&mut self, site: u32, first: u32) -> Result<(), Error> {
        self.site(site)?.first.store(first, Ordering::SeqCst);
        Ok(())
    }

    fn set_next(&mut self, probe: u32, next: u32) -> Result<(), Error> {
        self.probe(probe)?.next.store(next, Ordering::SeqCst);
        Ok(())
    }

    fn set_armed(&mut self, site: u32, armed: bool) -> Result<(), Error> {
        let site = self.site(site)?;
        site.state.store(if armed { Site::ARMED } else { 0 }, Ordering::Release);
        let address = site.address.load(Ordering::Relaxed);
        if !armed {
            // Also where somebody else has written over our breakpoint: what was there before is no one's concern now.
            self.planted.remove(&address);
        }
        Ok(())
    }

    fn set_jump(&mut self, site: u32, stands: bool) -> Result<(), Error> {
        let site = self.site(site)?;
        site.state.store(if stands { Site::ARMED } else { 0 }, Ordering::Release);
        let address = site.address.load(Ordering::Relaxed);
        if !stands {
            // As in `set_armed`: what somebody else has written over it is his.
            for at in address + 1..address + JUMP_LEN as u64 {
                self.planted.remove(&at);
            }
        }
        Ok(())
    }

    fn patch(&mut self, bytes: &[(u64, u8)]) -> Result<(), Error> {
        let written = bytes.iter().try_for_each(|&(address, byte)| self.write_byte(address, byte));
        K::sync_processors();
        // Once more: an emulator that was translating the old bytes meanwhile on another processor (QEMU, with a thread
        // for each) goes on with them, and notices only what is written when it no longer is. Elsewhere it is nothing.
        written.and_then(|()| bytes.iter().try_for_each(|&(address, byte)| Self::write(address, &[byte])))
    }

    fn grace(&mut self) -> bool {
        // Whoever enters from here on sees what was written before.
        fence(Ordering::SeqCst);
        for processor in &self.engine.tables.processors {
            let before = processor.entered.load(Ordering::Acquire);
            let same = || processor.entered.load(Ordering::Acquire) == before;
            while processor.active.load(Ordering::SeqCst) != 0 && same() {
                core::hint::spin_loop();
            }
        }
        true
    }
}
