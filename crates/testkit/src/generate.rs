//! Random instructions, register files and memory, from a seed.
//!
//! Values that mean something come first: addresses in the windows and at their ends, sign bits,
//! zero; a uniformly random operand would only ever fault.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use isa::x86::{Regs, flags, gpr};

use crate::differential::Case;
use crate::processor::{Bytes, CODE, DATA, MEMORY_LEN, Processor, STACK, State};

/// A small generator of random numbers (`splitmix64`).
///
/// ```
/// use testkit::generate::Random;
///
/// let (mut one, mut other) = (Random::new(7), Random::new(7));
/// assert_eq!(one.next(), other.next());
/// for _ in 0..100 {
///     assert!(one.below(6) < 6);
///     assert!([2, 3, 5].contains(&one.pick(&[2, 3, 5])));
/// }
/// assert!(one.one_in(1));
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that begins with `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in one case of `n`.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`.
    pub const fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// The seed of a test: of the environment variable `SEED`, or of the clock. It is printed, so a
/// failed run can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(clock);
    println!("SEED={seed}");
    seed
}

/// The number of random cases: of the environment variable `CASES`, or `default`.
///
/// ```
/// use testkit::generate::{Random, cases, seed};
///
/// // `SEED=7 CASES=100000 cargo test` tries more, and always the same.
/// let mut random = Random::new(seed());
/// for _ in 0..cases(100) {
///     let value = random.next();
///     assert_eq!(value.swap_bytes().swap_bytes(), value);
/// }
/// ```
#[must_use]
pub fn cases(default: u64) -> u64 {
    std::env::var("CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// Values at which something changes.
const EDGES: [u64; 16] = [
    0,
    1,
    7,
    8,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    i64::MAX as u64,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 32,
    (1 << 47) - 1,
    1 << 47,
    0xFFFF_8000_0000_0000,
    0xFFFF_7FFF_FFFF_FFFF,
];

/// A source of cases.
///
/// ```
/// use testkit::differential::Oracle;
/// use testkit::generate::{Generator, repeatable};
/// use testkit::processor::CODE;
///
/// let mut oracle = Oracle::new();
/// // Half of them are transfers of control, the others look like `add rax, rcx`.
/// let mut generator = Generator::new(7, vec![vec![0x48, 0x01, 0xC8]]);
/// for _ in 0..20 {
///     let case = generator.case(&oracle.processor);
///     assert!(CODE.contains(case.addr) && repeatable(&case.instruction()));
///     assert!(oracle.check(&case).is_ok());
/// }
/// ```
#[derive(Debug)]
pub struct Generator {
    random: Random,
    templates: Vec<Vec<u8>>,
    memory: Bytes,
    made: u64,
}

impl Generator {
    /// Cases from `seed`; half of the instructions are mutations of `templates`.
    #[must_use]
    pub fn new(seed: u64, templates: Vec<Vec<u8>>) -> Self {
        Self { random: Random::new(seed), templates, memory: Vec::new(), made: 0 }
    }

    /// The next case.
    pub fn case(&mut self, processor: &Processor) -> Case {
        if self.made.is_multiple_of(64) {
            self.memory = self.memory();
        }
        self.made += 1;
        let (code, instruction) = self.instruction();
        let addr = CODE.addr + 0x400 + self.random.below(0x800);
        let mut state = self.state(processor);
        state.regs.rip = addr;
        if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
            state.regs.gpr[gpr::RCX] = self.random.below(40);
        }
        Case { code, addr, state, memory: self.memory.clone() }
    }

    /// The next case for [`Oracle::check_window`](crate::differential::Oracle::check_window): several instructions.
    ///
    /// ```
    /// use testkit::{differential::Oracle, generate::Generator};
    ///
    /// let mut oracle = Oracle::new();
    /// let case = Generator::new(7, vec![vec![0x48, 0x01, 0xC8]]).window(&oracle.processor);
    /// assert!(case.code.len() >= 20 && oracle.check_window(&case).is_ok());
    /// ```
    pub fn window(&mut self, processor: &Processor) -> Case {
        // A step ends each round of a repeated instruction, and nobody knows how many there are behind another one.
        let repeats = |i: &Instruction| i.has_rep_prefix() || i.has_repne_prefix();
        let mut case = self.case(processor);
        while repeats(&case.instruction()) {
            case = self.case(processor);
        }
        while case.code.len() < 4 * isa::x86::JUMP_LEN {
            let (code, instruction) = self.instruction();
            // What follows a transfer is seldom reached.
            if !repeats(&instruction) && (instruction.flow_control() == FlowControl::Next || self.random.one_in(8)) {
                case.code.extend(code);
            }
        }
        case
    }

    fn instruction(&mut self) -> (Vec<u8>, Instruction) {
        loop {
            let mut code = if self.random.one_in(2) { self.transfer() } else { self.mutation() };
            code.truncate(15);
            let instruction = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).decode();
            if !instruction.is_invalid() && repeatable(&instruction) {
                code.truncate(instruction.len());
                return (code, instruction);
            }
        }
    }

    /// A control transfer, or one of the other operations that are emulated.
    fn transfer(&mut self) -> Vec<u8> {
        let mut code = Vec::new();
        for prefix in [0xF2, 0xF3, 0x3E, 0x2E, 0x64, 0x65, 0x67] {
            if self.random.one_in(8) {
                code.push(prefix);
            }
        }
        if self.random.one_in(3) {
            code.push(0x40 | self.random.below(16) as u8);
        }
        let near = (self.random.below(0x1000) as i32 - 0x800).to_le_bytes();
        let low = self.random.below(16) as u8;
        match self.random.below(12) {
            0 => code.extend([0xE8, near[0], near[1], near[2], near[3]]),
            1 => code.extend([0xE9, near[0], near[1], near[2], near[3]]),
            2 => code.extend([0xEB, self.random.next() as u8]),
            3 => code.extend([0x70 | low, self.random.next() as u8]),
            4 => code.extend([0x0F, 0x80 | low, near[0], near[1], near[2], near[3]]),
            5 => code.extend([0xE0 | low & 3, self.random.next() as u8]),
            6 if low < 8 => code.push(0xC3),
            6 => code.extend([0xC2, self.random.next() as u8, low & 1]),
            7 => code.extend([0x50 | low]),
            8 => code.extend(self.random.pick(&[&[0x9C_u8][..], &[0x90], &[0x0F, 0x1F, 0x44, 0x88, 0x00]])),
            // jmp and call, through a register or memory.
            _ => self.group(&mut code),
        }
        code
    }

    fn group(&mut self, code: &mut Vec<u8>) {
        let digit = self.random.pick(&[2, 4]);
        let modrm = (self.random.next() as u8 & 0xC7) | digit << 3;
        code.extend([0xFF, modrm]);
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let mut no_base = mode == 0 && rm == 5;
        if mode != 3 && rm == 4 {
            let sib = self.random.next() as u8;
            code.push(sib);
            no_base = mode == 0 && sib & 7 == 5;
        }
        let near = if self.random.one_in(2) { -8 } else { self.random.below(64) as i32 * 8 - 128 };
        // RIP-relative, or absolute: into a window from about here, or from 0.
        let window = self.random.pick(&[DATA.addr - CODE.addr, DATA.addr, STACK.addr, STACK.addr - CODE.addr]);
        let far = window as i32 + near + 0x400;
        code.extend(if no_base { far } else { near }.to_le_bytes());
    }

    fn mutation(&mut self) -> Vec<u8> {
        let choice = self.random.below(self.templates.len().max(1) as u64) as usize;
        let mut code = self.templates.get(choice).cloned().unwrap_or_else(|| vec![0x90]);
        match self.random.below(6) {
            0 => {}
            1 => code.insert(0, self.random.pick(&[0x66, 0x67, 0xF2, 0xF3, 0x64, 0x65, 0x48, 0x41])),
            _ => {
                let at = self.random.below(code.len() as u64) as usize;
                code[at] ^= 1 << self.random.below(8);
            }
        }
        // Whatever the changed ModRM byte asks for.
        code.extend([0, 0, 0, 0]);
        code
    }

    fn word(&mut self) -> u64 {
        let aligned = self.random.below(DATA.len / 8) * 8;
        match self.random.below(16) {
            0..=5 => DATA.addr + aligned,
            6 => DATA.addr + self.random.below(DATA.len),
            7 | 8 => STACK.addr + aligned,
            9 => CODE.addr + self.random.below(CODE.len),
            10 => DATA.addr + DATA.len - self.random.below(24),
            11 => self.random.below(64),
            12..=14 => self.random.pick(&EDGES),
            _ => self.random.next(),
        }
    }

    fn memory(&mut self) -> Bytes {
        let mut bytes = Vec::with_capacity(MEMORY_LEN);
        while bytes.len() < MEMORY_LEN {
            // Half are addresses of code, for calls, jumps and returns through memory.
            let code = CODE.addr + self.random.below(CODE.len);
            let word = if self.random.one_in(2) { code } else { self.word() };
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    fn state(&mut self, processor: &Processor) -> State {
        let mut regs = Regs::default();
        for register in &mut regs.gpr {
            *register = self.word();
        }
        if self.random.one_in(2) {
            regs.gpr[gpr::RCX] = self.random.below(4) | self.random.pick(&[0, 0, 1 << 32]);
        }
        regs.gpr[gpr::RSP] = match self.random.below(16) {
            0 => self.word(),
            1 => STACK.addr + self.random.below(24),
            2 => STACK.addr + STACK.len - self.random.below(24),
            _ => STACK.addr + 0x800 + self.random.below(0x1000 / 8) * 8,
        };
        let arithmetic = flags::CF | flags::PF | flags::AF | flags::ZF | flags::SF | flags::OF;
        regs.flags = 0x202 | self.random.next() & arithmetic;
        if self.random.one_in(8) {
            regs.flags |= flags::DF;
        }
        let base = self.random.pick(&[0, 0x100, DATA.addr, DATA.addr + 0x800]);
        State { regs, fs_base: base, gs_base: DATA.addr + 0x40, vectors: processor.vectors(self.random.below(16)) }
    }
}

/// Whether an instruction does the same whenever it is repeated, and leaves the process able to.
///
/// ```
/// use iced_x86::{Decoder, DecoderOptions};
/// use testkit::generate::repeatable;
///
/// let decoded = |code| Decoder::new(64, code, DecoderOptions::NONE).decode();
/// assert!(repeatable(&decoded(&[0x90]))); // nop
/// assert!(!repeatable(&decoded(&[0x0F, 0x31]))); // rdtsc
/// assert!(!repeatable(&decoded(&[0x0F, 0x05]))); // syscall
/// ```
#[must_use]
pub fn repeatable(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    !matches!(
        instruction.mnemonic(),
        // Time, chance, and which processor it runs on.
        Rdtsc | Rdtscp | Rdpru | Rdpmc | Rdrand | Rdseed | Rdpid | Cpuid | Xgetbv | Lsl | Lar
            | Sgdt | Sidt | Sldt | Str | Smsw
            // The system.
            | Syscall | Sysenter | Int | Int3 | Int1 | Sysret | Sysexit | Iret | Iretd | Iretq | Retf | Uiret
            // The address of the last x87 instruction, and which components are in use.
            | Fnstenv | Fnsave | Fstenv | Fsave | Fxsave | Fxsave64 | Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt
            | Xsaveopt64 | Xrstor | Xrstor64 | Wrpkru
            // Waits.
            | Mwaitx | Umwait | Tpause | Monitorx | Mwait
            // Transactions abort as they like.
            | Xbegin | Xend | Xabort | Xtest
            // Hypervisors.
            | Vmcall | Vmmcall | Vmfunc | Tdcall | Vmgexit
    ) && !far_jump(instruction)
        && !loads_trap_flag(instruction)
}

fn far_jump(instruction: &Instruction) -> bool {
    use iced_x86::Code;
    matches!(instruction.code(), Code::Jmp_m1616 | Code::Jmp_m1632 | Code::Jmp_m1664)
}

/// `popf` of a random word may set TF, which traps before the breakpoint; it has a test of its own.
fn loads_trap_flag(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Popf | Mnemonic::Popfq)
}
