//! What is before an instruction: registers, flags, data, stack.
//!
//! Pointers point where an access does no harm; everything else is random. By convention of the forms
//! `rbx rsi rdi r8 r12 r13` point to data, `rbp` and `rsp` to the stack, `r9` is a small index, `r11` and `r14` are
//! addresses to arrive at.

use super::bench::{self, DATA_WORDS, STACK_WORDS};
use super::form::{Form, Needs, Target};
use super::random::Random;
use host_bare::Regs;
use isa::x86::{flags, gpr};

/// Registers that point to data.
const POINTERS: [usize; 6] = [gpr::RBX, gpr::RSI, gpr::RDI, 8, 12, 13];
/// Registers that hold addresses to arrive at.
const TARGETS: [usize; 2] = [11, 14];
/// Flags that arithmetic sets, direction and interrupts.
const ORDINARY: u64 = flags::CF | flags::PF | flags::AF | flags::ZF | flags::SF | flags::OF | flags::DF | flags::IF;
/// Flags that a kernel may set besides. Not the trap flag, which is the engine's means.
const RARE: u64 = flags::IOPL | flags::NT | flags::AC | flags::ID;

/// Everything an instruction depends on.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Registers; `rip` is set by whoever runs it.
    pub(super) regs: Regs,
    /// The words of data.
    pub(super) data: [u64; DATA_WORDS],
    /// The words of the stack's window.
    pub(super) stack: [u64; STACK_WORDS],
    /// What is below `rsp` now is not compared afterwards.
    pub(super) allocates: bool,
}

impl State {
    /// The state of this seed for a form.
    pub(super) fn new(form: &Form, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let allocates = form.needs.has(Needs::ALLOCATES);
        let mut state = Self { regs: Regs::default(), data: [0; DATA_WORDS], stack: [0; STACK_WORDS], allocates };
        state.registers(form, &mut random);
        state.memory(form, &mut random);
        state.top(form, &mut random);
        state.equal(form, &mut random);
        state
    }

    fn registers(&mut self, form: &Form, random: &mut Random) {
        let aligned = is_aligned(form);
        self.regs.gpr = core::array::from_fn(|_| random.operand());
        for register in POINTERS {
            let odd = if aligned || !random.one_in(4) { 0 } else { random.below(8) };
            self.regs.gpr[register] = bench::data() + 768 + random.below(32) * 16 + odd;
        }
        if random.one_in(4) {
            self.regs.gpr[gpr::RDI] = self.regs.gpr[gpr::RSI];
        }
        TARGETS.into_iter().for_each(|register| self.regs.gpr[register] = bench::landing(random.next()));
        let small = |random: &mut Random| if aligned { 8 * random.below(2) } else { random.below(12) };
        self.regs.gpr[9] = small(random);
        if form.needs.has(Needs::SMALL_RCX) {
            self.regs.gpr[gpr::RCX] = small(random);
        }
        if form.needs.has(Needs::DIVIDES) && !random.one_in(4) {
            self.regs.gpr[gpr::RDX] = 0;
            self.regs.gpr[gpr::RAX] = random.below(128);
        }
        self.regs.gpr[gpr::RBP] = bench::stack() + 256 + random.below(8) * 8;
        let odd = if aligned || !random.one_in(8) { 0 } else { 2 * random.below(4) };
        self.regs.gpr[gpr::RSP] = bench::stack() + 128 + random.below(4) * 16 + odd;
        self.regs.flags = any_flags(random);
        if form.needs.has(Needs::SELECTOR) {
            self.regs.flags &= !flags::IF;
            let selector = if random.one_in(2) { 0 } else { bench::data_selector() };
            self.regs.gpr[gpr::RAX] = self.regs.gpr[gpr::RAX] & !0xFFFF | selector;
        }
        match form.target {
            Target::None => {}
            Target::Good(register) => self.regs.set(register, bench::landing(random.next())),
            Target::Bad(register) => self.regs.set(register, 1 << 63 | random.next() >> 2),
        }
    }

    fn memory(&mut self, form: &Form, random: &mut Random) {
        let few = random.one_in(4);
        for (index, word) in self.data.iter_mut().chain(&mut self.stack).enumerate() {
            *word = match random.next() {
                _ if form.needs.has(Needs::FAR) && index % 2 == 1 => bench::code_selector(),
                value if form.needs.has(Needs::TARGETS) => bench::landing(value),
                value if few => (value & 1).wrapping_neg(),
                value => value,
            };
        }
    }

    /// The word that a pop finds.
    fn top(&mut self, form: &Form, random: &mut Random) {
        let index = (self.regs.rsp() - bench::stack()) as usize / 8;
        if form.needs.has(Needs::POINTER_TOP) {
            self.stack[index] = bench::stack() + 256 + random.below(8) * 8;
        }
        if form.needs.has(Needs::FLAGS_TOP) {
            self.stack[index] = any_flags(random);
        }
    }

    fn equal(&mut self, form: &Form, random: &mut Random) {
        if form.needs.has(Needs::EQUAL) && random.one_in(2) {
            let value = self.regs.gpr[gpr::RAX];
            self.regs.gpr[gpr::RDX] = value;
            self.data.fill(value);
            self.stack.fill(value);
        }
    }
}

/// Words of memory mean something, or are accessed as such: pointers to them are aligned.
fn is_aligned(form: &Form) -> bool {
    const WORDS: [Needs; 5] = [Needs::TARGETS, Needs::FAR, Needs::POINTER_TOP, Needs::FLAGS_TOP, Needs::ALIGNED];
    WORDS.into_iter().any(|need| form.needs.has(need))
}

fn any_flags(random: &mut Random) -> u64 {
    const FIXED: u64 = 2;
    let rare = if random.one_in(4) { RARE } else { 0 };
    random.next() & (ORDINARY | rare) | FIXED
}
