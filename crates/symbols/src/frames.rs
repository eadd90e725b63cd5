//! Where functions begin and end, and what they save, according to `.eh_frame`.
//!
//! Compilers write a frame description entry for every function they make, so unwinding works
//! through it; stripping leaves them. They are the best knowledge of a function's bounds: a
//! symbol's size can be missing or cover another function's bytes. A function whose rarely run part
//! was moved away (`.cold`) has two entries, and the second begins in the middle of the frame: its
//! canonical frame address is not `rsp + 8`, which is how it is told from a function (DWARF 5, 6.4;
//! x86-64 psABI 3.7).

use crate::image::Image;
use gimli::{BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, LittleEndian, UnwindSection as _, X86_64};

/// Most entries that are kept: a bound for hostile tables, ten times what a web browser has.
const MOST: usize = 8 << 20;

/// One frame description entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The frame is set up from its first instruction on: the entry of a function, not a part moved
    /// away.
    pub(crate) is_entry: bool,
    /// It saves `rax` and `rdx` and nothing else that callers expect to lose: only functions that
    /// use `__builtin_eh_return` do.
    pub(crate) is_eh_return: bool,
}

/// All entries of an object, by address.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) entries: Vec<Frame>,
    /// Some entry names a personality routine: code here takes part in exceptions or clean-up.
    pub(crate) has_personality: bool,
}

impl Frames {
    pub(crate) fn read(image: &Image) -> Self {
        let mut frames = Self::default();
        if let Some((addr, bytes)) = eh_frame(image) {
            frames.collect(addr, bytes);
        }
        // Entries of functions that the linker dropped keep address 0 or point nowhere.
        frames.entries.retain(|f| f.start < f.end && image.load_of(f.start).is_some_and(|l| l.is_executable()));
        frames.entries.sort_by_key(|f| (f.start, f.end));
        frames.entries.dedup_by_key(|f| f.start);
        // No byte belongs to two functions, whatever the table says.
        for i in 1..frames.entries.len() {
            frames.entries[i - 1].end = frames.entries[i - 1].end.min(frames.entries[i].start);
        }
        frames
    }

    /// The entry that covers `vaddr`.
    pub(crate) fn at(&self, vaddr: u64) -> Option<&Frame> {
        let after = self.entries.partition_point(|f| f.start <= vaddr);
        self.entries[..after].last().filter(|f| vaddr < f.end)
    }

    fn collect(&mut self, addr: u64, bytes: &[u8]) {
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        let bases = BaseAddresses::default().set_eh_frame(addr);
        let mut entries = section.entries(&bases);
        let mut cies = CieCache::default();
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(|section, bases, offset| cies.get(section, bases, offset)) else { continue };
            self.has_personality |= fde.personality().is_some();
            let mut frame =
                Frame { start: fde.initial_address(), end: fde.end_address(), is_entry: true, is_eh_return: false };
            inspect(&mut frame, fde.instructions(&section, &bases));
            self.entries.push(frame);
            if self.entries.len() >= MOST {
                break;
            }
        }
    }
}

type Slice<'a> = gimli::EndianSlice<'a, LittleEndian>;

/// The common entry used last: neighbours share it nearly always.
#[derive(Default)]
struct CieCache<'a>(Option<(gimli::EhFrameOffset<usize>, gimli::CommonInformationEntry<Slice<'a>>)>);

impl<'a> CieCache<'a> {
    fn get(
        &mut self,
        section: &EhFrame<Slice<'a>>,
        bases: &BaseAddresses,
        offset: gimli::EhFrameOffset<usize>,
    ) -> gimli::Result<gimli::CommonInformationEntry<Slice<'a>>> {
        match &self.0 {
            Some((at, cie)) if *at == offset => Ok(cie.clone()),
            _ => {
                let cie = section.cie_from_offset(bases, offset)?;
                self.0 = Some((offset, cie.clone()));
                Ok(cie)
            }
        }
    }
}

/// Reads an entry's instructions for the two marks. What comes before the first advance holds at
/// the first byte.
fn inspect<'a>(frame: &mut Frame, mut instructions: gimli::CallFrameInstructionIter<'a, Slice<'a>>) {
    let mut at_start = true;
    let mut saved = 0u32;
    while let Ok(Some(instruction)) = instructions.next() {
        match instruction {
            CallFrameInstruction::AdvanceLoc { delta } if delta > 0 => at_start = false,
            CallFrameInstruction::Offset { register, .. } if register.0 < 17 => saved |= 1 << register.0,
            CallFrameInstruction::DefCfa { register, offset } if at_start => {
                frame.is_entry = register == X86_64::RSP && offset == 8;
            }
            CallFrameInstruction::DefCfaOffset { offset } if at_start => frame.is_entry = offset == 8,
            CallFrameInstruction::DefCfaRegister { register } if at_start => frame.is_entry = register == X86_64::RSP,
            CallFrameInstruction::DefCfaExpression { .. } if at_start => frame.is_entry = false,
            _ => {}
        }
    }
    // DWARF's numbers: rax rdx rcx rbx rsi rdi rbp rsp r8 ... (psABI, figure 3.36).
    const CALLER_SAVED: u32 = 0b1111_0011_0111;
    frame.is_eh_return = saved & CALLER_SAVED == 0b11;
}

/// `.eh_frame`, by its section or through `PT_GNU_EH_FRAME`.
fn eh_frame(image: &Image) -> Option<(u64, &[u8])> {
    if let Some(section) = image.section(".eh_frame") {
        return Some((section.addr, image.section_bytes(section)?));
    }
    let (addr, len) = image.eh_frame_hdr?;
    let header = gimli::EhFrameHdr::new(image.mapped(addr, len)?, LittleEndian);
    let header = header.parse(&BaseAddresses::default().set_eh_frame_hdr(addr), 8).ok()?;
    let gimli::Pointer::Direct(start) = header.eh_frame_ptr() else { return None };
    Some((start, image.mapped_from(start)?))
}
