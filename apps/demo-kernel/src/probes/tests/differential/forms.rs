//! The forms: what the manual's opcode map has for a kernel's code, systematically.
//!
//! A loop over operations takes turns over operands, so that every operation meets registers and memory and every kind
//! of address occurs with many operations; not every operation with every address.

mod data;
mod stack;
mod transfers;

use super::form::{Coded, Form, Needs, Place};
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
        &VALUE[..if self.w == 0 {
            1
        } else if self.prefix.is_empty() {
            4
        } else {
            2
        }]
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
    data::all(&mut maker);
    stack::all(&mut maker);
    transfers::all(&mut maker);
    maker.forms
}
