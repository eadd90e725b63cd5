//! The forms: what the manual's opcode map has for a kernel's code, systematically.
//!
//! A loop over operations takes turns over operands, so that every operation meets registers and memory and every kind
//! of address occurs with many operations; not every operation with every address.

use super::form::{Coded, Fix, Form, Needs, Place, Target};
use alloc::vec::Vec;

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;
const RSP: u8 = 4;
const RBP: u8 = 5;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// Registers as operands that may be written: not `rsp`, on which the way out needs a stack.
const REGISTERS: [u8; 13] = [RAX, RDX, 10, RCX, 15, RBX, 8, RSI, 11, RBP, 14, 9, RDI];
/// Places in memory, each allowed by the convention of [`super::state`].
const PLACES: [Place; 9] = [
    Place::Base(RBX, 0),
    Place::Data,
    Place::Base(12, 0),
    Place::Base(RSP, 16),
    Place::Base(13, 8),
    Place::Indexed(RDI, RCX, 3, -8),
    Place::Base(RBP, -16),
    Place::Indexed(8, 9, 1, 64),
    Place::Base(RSI, 256),
];
const WIDTHS: [Width; 4] = [
    Width { prefix: &[], wide: false, w: 0 },
    Width { prefix: &[0x66], wide: false, w: 1 },
    Width { prefix: &[], wide: false, w: 1 },
    Width { prefix: &[], wide: true, w: 1 },
];
/// An immediate value as it is written in one, two and four bytes.
const VALUE: [u8; 4] = [0x95, 0x12, 0x34, 0xA6];

/// A width of operands.
#[derive(Clone, Copy)]
struct Width {
    prefix: &'static [u8],
    /// REX.W.
    wide: bool,
    /// What is added to the opcode for bytes.
    w: u8,
}

impl Width {
    /// An immediate value of the operand's width, but at most four bytes.
    fn whole(self) -> &'static [u8] {
        &VALUE[..if self.w == 0 { 1 } else if self.prefix.is_empty() { 4 } else { 2 }]
    }
}

/// Gives operands in turn.
#[derive(Default)]
struct Maker {
    forms: Vec<Form>,
    registers: usize,
    places: usize,
}

impl Maker {
    fn register(&mut self) -> u8 {
        self.registers += 1;
        REGISTERS[self.registers % REGISTERS.len()]
    }

    fn place(&mut self) -> Place {
        self.places += 1;
        PLACES[self.places % PLACES.len()]
    }

    fn add(&mut self, form: Form) {
        self.forms.push(form);
    }

    fn plain(&mut self, class: &'static str, all: &[&[u8]]) {
        for code in all {
            self.add(Form::new(class, code));
        }
    }

    /// One with a register and one with memory.
    fn both(&mut self, coded: Coded<'_>, needs: Needs) {
        let register = Place::Register(self.register());
        let memory = self.place();
        self.add(Coded { place: register, ..coded }.form().needing(needs));
        self.add(Coded { place: memory, ..coded }.form().needing(needs));
    }

    fn memory(&mut self, coded: Coded<'_>, needs: Needs) {
        let place = self.place();
        self.add(Coded { place, ..coded }.form().needing(needs));
    }
}

/// An instruction without operands so far.
const fn coded<'a>(class: &'static str, opcode: &'a [u8]) -> Coded<'a> {
    Coded { class, prefix: &[], wide: false, opcode, register: 0, place: Place::Register(0), value: &[] }
}

/// The same with operands of a width.
const fn sized<'a>(class: &'static str, width: Width, opcode: &'a [u8]) -> Coded<'a> {
    Coded { prefix: width.prefix, wide: width.wide, ..coded(class, opcode) }
}

/// All forms.
pub(super) fn all() -> Vec<Form> {
    let mut maker = Maker::default();
    arithmetic(&mut maker);
    groups(&mut maker);
    shifts(&mut maker);
    moves(&mut maker);
    bits(&mut maker);
    atomics(&mut maker);
    strings(&mut maker);
    stack(&mut maker);
    flags(&mut maker);
    segments(&mut maker);
    branches(&mut maker);
    indirect(&mut maker);
    returns(&mut maker);
    maker.forms
}

fn arithmetic(maker: &mut Maker) {
    for operation in 0..8 {
        for width in WIDTHS {
            for direction in [0, 2] {
                let register = maker.register();
                let opcode = [operation << 3 | direction | width.w];
                maker.both(Coded { register, ..sized("arithmetic", width, &opcode) }, Needs::NOTHING);
            }
            let whole = width.whole();
            let mut accumulator = Vec::from(width.prefix);
            accumulator.extend(width.wide.then_some(0x48));
            accumulator.push(operation << 3 | 4 | width.w);
            accumulator.extend(whole);
            maker.add(Form::new("arithmetic", &accumulator));
            let opcode = [0x80 | width.w];
            maker.both(Coded { register: operation, value: whole, ..sized("arithmetic", width, &opcode) }, Needs::NOTHING);
            if width.w == 1 {
                let short = Coded { register: operation, value: &VALUE[..1], ..sized("arithmetic", width, &[0x83]) };
                maker.both(short, Needs::NOTHING);
            }
        }
    }
}

/// Groups 3 to 5: `test not neg mul imul div idiv`, `inc dec`; and `test`, `imul` with two and three operands.
fn groups(maker: &mut Maker) {
    for width in WIDTHS {
        let whole = width.whole();
        let (third, fourth, test) = ([0xF6 | width.w], [0xFE | width.w], [0x84 | width.w]);
        maker.both(Coded { value: whole, ..sized("arithmetic", width, &third) }, Needs::NOTHING);
        for register in 2..6 {
            maker.both(Coded { register, ..sized("arithmetic", width, &third) }, Needs::NOTHING);
        }
        for register in [6, 6, 7, 7] {
            maker.both(Coded { register, ..sized("arithmetic", width, &third) }, Needs::DIVIDES);
        }
        for register in [0, 1] {
            maker.both(Coded { register, ..sized("arithmetic", width, &fourth) }, Needs::NOTHING);
        }
        let register = maker.register();
        maker.both(Coded { register, ..sized("arithmetic", width, &test) }, Needs::NOTHING);
        if width.w == 1 {
            maker.both(Coded { register, ..sized("arithmetic", width, &[0x0F, 0xAF]) }, Needs::NOTHING);
            maker.both(Coded { register, value: &VALUE[..1], ..sized("arithmetic", width, &[0x6B]) }, Needs::NOTHING);
            maker.both(Coded { register, value: whole, ..sized("arithmetic", width, &[0x69]) }, Needs::NOTHING);
        }
    }
}

fn shifts(maker: &mut Maker) {
    for width in WIDTHS {
        for register in [0, 1, 2, 3, 4, 5, 7] {
            let (by_value, by_one, by_cl) = ([0xC0 | width.w], [0xD0 | width.w], [0xD2 | width.w]);
            maker.both(Coded { register, value: &[register * 5 + 1], ..sized("shifts", width, &by_value) }, Needs::NOTHING);
            maker.memory(Coded { register, ..sized("shifts", width, &by_one) }, Needs::NOTHING);
            maker.both(Coded { register, ..sized("shifts", width, &by_cl) }, Needs::NOTHING);
        }
        if width.w == 1 {
            for opcode in [0xA4, 0xAC] {
                let register = maker.register();
                maker.both(Coded { register, value: &[9], ..sized("shifts", width, &[0x0F, opcode]) }, Needs::NOTHING);
                maker.both(Coded { register, ..sized("shifts", width, &[0x0F, opcode | 1]) }, Needs::NOTHING);
            }
        }
    }
}

fn moves(maker: &mut Maker) {
    for width in WIDTHS {
        let whole = width.whole();
        for opcode in [0x88, 0x8A, 0x86, 0xC6] {
            let (register, value) = if opcode == 0xC6 { (0, whole) } else { (maker.register(), &[] as &[u8]) };
            // xchg locks.
            let needs = if opcode == 0x86 { Needs::ALIGNED } else { Needs::NOTHING };
            maker.both(Coded { register, value, ..sized("moves", width, &[opcode | width.w]) }, needs);
        }
        if width.w == 0 {
            continue;
        }
        for opcode in [0xB6, 0xB7, 0xBE, 0xBF] {
            let register = maker.register();
            maker.both(Coded { register, ..sized("moves", width, &[0x0F, opcode]) }, Needs::NOTHING);
        }
        for condition in 0x40..0x50 {
            let register = maker.register();
            maker.both(Coded { register, ..sized("moves", width, &[0x0F, condition]) }, Needs::NOTHING);
        }
        for place in PLACES {
            let register = maker.register();
            maker.add(Coded { register, place, ..sized("moves", width, &[0x8D]) }.form());
        }
    }
    for condition in 0x90..0xA0 {
        maker.both(coded("moves", &[0x0F, condition]), Needs::NOTHING);
    }
    for wide in [false, true] {
        maker.both(Coded { wide, register: 10, ..coded("moves", &[0x63]) }, Needs::NOTHING);
    }
    for code in 0..8 {
        // movabs, bswap, xchg with rax
        if code != RSP {
            maker.add(Form::new("moves", &[0x48, 0xB8 | code, 1, 2, 3, 4, 5, 6, 7, 0x88]));
            maker.plain("moves", &[&[0x48, 0x0F, 0xC8 | code], &[0x0F, 0xC8 | code], &[0x48, 0x90 | code]]);
        }
        maker.plain("moves", &[&[0x49, 0x0F, 0xC8 | code], &[0x49, 0x90 | code], &[0x41, 0xB0 | code, 0x77]]);
    }
    maker.plain("moves", &[&[0x98], &[0x48, 0x98], &[0x66, 0x98], &[0x99], &[0x48, 0x99], &[0x66, 0x99], &[0xD7]]);
}

fn bits(maker: &mut Maker) {
    for width in WIDTHS {
        if width.w == 0 {
            continue;
        }
        for (extension, opcode) in [(4, 0xA3), (5, 0xAB), (6, 0xB3), (7, 0xBB)] {
            // In memory a large bit number in a register would be far away.
            maker.both(Coded { register: RCX, ..sized("bits", width, &[0x0F, opcode]) }, Needs::SMALL_RCX);
            maker.both(Coded { register: extension, value: &[0x2B], ..sized("bits", width, &[0x0F, 0xBA]) }, Needs::NOTHING);
        }
        for opcode in [0xBC, 0xBD] {
            let register = maker.register();
            maker.both(Coded { register, ..sized("bits", width, &[0x0F, opcode]) }, Needs::NOTHING);
        }
        // tzcnt, lzcnt, popcnt
        let mut repeated = Vec::from(width.prefix);
        repeated.push(0xF3);
        for opcode in [0xB8, 0xBC, 0xBD] {
            let register = maker.register();
            maker.both(Coded { prefix: &repeated, register, ..sized("bits", width, &[0x0F, opcode]) }, Needs::NOTHING);
        }
    }
}

/// `xadd`, `cmpxchg`, and arithmetic with `lock`.
///
/// Locked accesses are aligned: QEMU (7.2) executes others on one processor alone, and if the trap flag is set it loses
/// the flags then, with a probe or without.
fn atomics(maker: &mut Maker) {
    let equal = Needs::EQUAL.and(Needs::ALIGNED);
    for width in WIDTHS {
        let mut lock = Vec::from(width.prefix);
        lock.push(0xF0);
        let register = maker.register();
        maker.both(Coded { register, ..sized("atomics", width, &[0x0F, 0xC0 | width.w]) }, Needs::NOTHING);
        maker.both(Coded { register, ..sized("atomics", width, &[0x0F, 0xB0 | width.w]) }, Needs::EQUAL);
        for _ in 0..2 {
            let register = maker.register();
            maker.memory(Coded { prefix: &lock, register, ..sized("atomics", width, &[0x0F, 0xC0 | width.w]) }, Needs::ALIGNED);
            maker.memory(Coded { prefix: &lock, register, ..sized("atomics", width, &[0x0F, 0xB0 | width.w]) }, equal);
        }
        for operation in 0..7 {
            let register = maker.register();
            maker.memory(Coded { prefix: &lock, register, ..sized("atomics", width, &[operation << 3 | width.w]) }, Needs::ALIGNED);
        }
        for register in [2, 3] {
            maker.memory(Coded { prefix: &lock, register, ..sized("atomics", width, &[0xF6 | width.w]) }, Needs::ALIGNED);
            maker.memory(Coded { prefix: &lock, register: register - 2, ..sized("atomics", width, &[0xFE | width.w]) }, Needs::ALIGNED);
        }
    }
    for wide in [false, true] {
        let form = Coded { prefix: &[0xF0], wide, register: 1, ..coded("atomics", &[0x0F, 0xC7]) };
        (0..4).for_each(|_| maker.memory(form, equal));
    }
    maker.plain("atomics", &[&[0x0F, 0xAE, 0xF0], &[0x0F, 0xAE, 0xE8], &[0x0F, 0xAE, 0xF8], &[0xF3, 0x90]]);
}

fn strings(maker: &mut Maker) {
    const REPEATED: [(u8, &[&[u8]]); 5] = [
        (0xA4, &[&[], &[0xF3]]),
        (0xA6, &[&[], &[0xF3], &[0xF2]]),
        (0xAA, &[&[], &[0xF3]]),
        (0xAC, &[&[], &[0xF3]]),
        (0xAE, &[&[], &[0xF3], &[0xF2]]),
    ];
    for (opcode, repeats) in REPEATED {
        for &repeat in repeats {
            for width in WIDTHS {
                let mut code = Vec::from(width.prefix);
                code.extend(repeat);
                code.extend(width.wide.then_some(0x48));
                code.push(opcode | width.w);
                maker.add(Form::new("strings", &code).needing(Needs::SMALL_RCX));
            }
        }
    }
}

fn stack(maker: &mut Maker) {
    for code in 0..8 {
        maker.plain("stack", &[&[0x50 | code], &[0x41, 0x50 | code], &[0x66, 0x50 | code], &[0xFF, 0xF0 | code]]);
        if code != RSP {
            maker.plain("stack", &[&[0x58 | code], &[0x66, 0x58 | code], &[0x8F, 0xC0 | code]]);
        }
        maker.plain("stack", &[&[0x41, 0x58 | code]]);
    }
    maker.add(Form::new("stack", &[0x5C]).needing(Needs::POINTER_TOP));
    maker.add(Form::new("stack", &[0x8F, 0xC4]).needing(Needs::POINTER_TOP));
    for place in PLACES {
        maker.add(Coded { register: 6, place, ..coded("stack", &[0xFF]) }.form());
        maker.add(Coded { place, ..coded("stack", &[0x8F]) }.form());
        maker.add(Coded { prefix: &[0x66], register: 6, place, ..coded("stack", &[0xFF]) }.form());
        maker.add(Coded { prefix: &[0x66], place, ..coded("stack", &[0x8F]) }.form());
    }
    maker.plain("stack", &[
        &[0x6A, 0x08], &[0x6A, 0xFF], &[0x68, 0x78, 0x56, 0x34, 0x92], &[0x66, 0x68, 0x34, 0x12], &[0x66, 0x6A, 0x80],
        &[0xC8, 0, 0, 0], &[0xC8, 0, 0, 1], &[0xC8, 0, 0, 2], &[0xC8, 0, 0, 5], &[0xC9],
        &[0x48, 0x83, 0xC4, 0x18], &[0x48, 0x83, 0xE4, 0xF0],
        &[0x48, 0x8D, 0x64, 0x24, 0x08], &[0x48, 0x89, 0xEC], &[0x48, 0x87, 0xE5],
    ]);
    let larger: [&[u8]; 3] = [&[0xC8, 0x10, 0, 0], &[0xC8, 0x20, 0, 2], &[0x48, 0x83, 0xEC, 0x20]];
    larger.into_iter().for_each(|code| maker.add(Form::new("stack", code).needing(Needs::ALLOCATES)));
}

fn flags(maker: &mut Maker) {
    maker.plain("flags", &[
        &[0x9C], &[0x66, 0x9C], &[0x9F], &[0x9E], &[0xF5], &[0xF8], &[0xF9], &[0xFA], &[0xFB], &[0xFC], &[0xFD],
    ]);
    maker.add(Form::new("flags", &[0x9D]).needing(Needs::FLAGS_TOP));
    maker.add(Form::new("flags", &[0x66, 0x9D]).needing(Needs::FLAGS_TOP));
}

/// Segment registers but `fs` and `gs`, and what a kernel alone may read.
fn segments(maker: &mut Maker) {
    for segment in 0..6 {
        for width in WIDTHS {
            if width.w == 1 {
                let coded = Coded { register: segment, ..sized("segments", width, &[0x8C]) };
                maker.both(coded, Needs::NOTHING);
            }
        }
    }
    for segment in [0, 2, 3] {
        maker.add(Form::new("segments", &[0x8E, 0xC0 | segment << 3]).needing(Needs::SELECTOR));
        maker.add(Form::new("segments", &[0x48, 0x8E, 0xC0 | segment << 3]).needing(Needs::SELECTOR));
    }
    // push fs, push gs; verr, verw; mov from cr0, cr3, cr4, dr7; invlpg; nops
    maker.plain("segments", &[
        &[0x0F, 0xA0], &[0x0F, 0xA8], &[0x0F, 0x00, 0xE0], &[0x0F, 0x00, 0xE8], &[0x0F, 0x20, 0xC2], &[0x0F, 0x20, 0xDA],
        &[0x41, 0x0F, 0x20, 0xE2], &[0x0F, 0x21, 0xF8], &[0x0F, 0x01, 0x3B], &[0xF3, 0x0F, 0x1E, 0xFA], &[0x90],
        &[0x66, 0x90], &[0x0F, 0x1F, 0x44, 0x00, 0x00], &[0x66, 0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0],
    ]);
}

/// Direct branches.
fn branches(maker: &mut Maker) {
    let far = |code: &[u8]| Form::new("branches", code).fixed(Fix::Landing(code.len() - 4));
    for condition in 0..16 {
        maker.plain("branches", &[&[0x70 | condition, 0x2E], &[0x70 | condition, 0xE0]]);
        maker.add(far(&[0x0F, 0x80 | condition, 0, 0, 0, 0]));
        maker.add(far(&[0x2E, 0x0F, 0x80 | condition, 0, 0, 0, 0]));
    }
    maker.plain("branches", &[&[0xEB, 0], &[0xEB, 0x30], &[0xEB, 0xD8], &[0x48, 0xEB, 0x11]]);
    let near: [&[u8]; 5] =
        [&[0xE9, 0, 0, 0, 0], &[0xF2, 0xE9, 0, 0, 0, 0], &[0xE8, 0, 0, 0, 0], &[0x48, 0xE8, 0, 0, 0, 0], &[0xF2, 0xE8, 0, 0, 0, 0]];
    near.into_iter().for_each(|code| maker.add(far(code)));
    for opcode in 0xE0..0xE4 {
        let forms: [&[u8]; 4] = [&[opcode, 0xF0], &[opcode, 0x21], &[0x67, opcode, 0x10], &[0x48, opcode, 0xD9]];
        for code in forms {
            maker.add(Form::new("branches", code));
            maker.add(Form::new("branches", code).needing(Needs::SMALL_RCX));
        }
    }
    maker.add(Form::new("branches", &[0xF3, 0xE2, 0x10]).needing(Needs::SMALL_RCX));
}

/// Calls and jumps through registers and memory.
fn indirect(maker: &mut Maker) {
    for (extension, class) in [(2, "calls"), (4, "jumps")] {
        for register in REGISTERS {
            let place = Place::Register(register);
            let coded = Coded { register: extension, place, ..coded(class, &[0xFF]) };
            maker.add(coded.form().to(Target::Good(register)));
            maker.add(Coded { prefix: &[0x3E], ..coded }.form().to(Target::Bad(register)));
        }
        for place in PLACES.into_iter().chain([Place::Base(RSP, 0), Place::Indexed(RSP, RCX, 3, 16)]) {
            let coded = Coded { register: extension, place, ..coded(class, &[0xFF]) };
            maker.add(coded.form().needing(Needs::TARGETS));
            maker.add(Coded { prefix: &[0x3E], wide: true, ..coded }.form().needing(Needs::TARGETS));
            // Relative to `fs`, whose base is data: `fs:[r9]` can be read, all other addresses fault.
            maker.add(Coded { prefix: &[0x64], ..coded }.form().needing(Needs::TARGETS));
        }
        let through = |base| Coded { register: extension, place: Place::Base(base, 16), ..coded(class, &[0xFF]) };
        maker.add(Coded { prefix: &[0x64], ..through(9) }.form().needing(Needs::TARGETS));
        for base in [RAX, RDX, 10, 15] {
            maker.add(through(base).form().to(Target::Bad(base)));
        }
    }
    // jmp far [rbx]
    maker.add(Form::new("jumps", &[0x48, 0xFF, 0x2B]).needing(Needs::FAR));
}

fn returns(maker: &mut Maker) {
    let forms: [&[u8]; 6] =
        [&[0xC3], &[0xF3, 0xC3], &[0x48, 0xC3], &[0xC2, 8, 0], &[0xC2, 0x20, 0], &[0xC2, 0, 1]];
    for code in forms {
        maker.add(Form::new("returns", code).needing(Needs::TARGETS));
    }
    maker.add(Form::new("returns", &[0x48, 0xCB]).needing(Needs::FAR));
    maker.add(Form::new("returns", &[0x48, 0xCA, 16, 0]).needing(Needs::FAR));
}
