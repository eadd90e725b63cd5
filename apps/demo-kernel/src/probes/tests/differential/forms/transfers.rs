//! What goes elsewhere.

use super::{Maker, PLACES, RAX, RCX, RDX, REGISTERS, RSP, coded};
use crate::probes::tests::differential::form::{Coded, Fix, Form, Needs, Place, Target};

pub(super) fn all(maker: &mut Maker) {
    branches(maker);
    indirect(maker);
    returns(maker);
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
    let near: [&[u8]; 5] = [
        &[0xE9, 0, 0, 0, 0],
        &[0xF2, 0xE9, 0, 0, 0, 0],
        &[0xE8, 0, 0, 0, 0],
        &[0x48, 0xE8, 0, 0, 0, 0],
        &[0xF2, 0xE8, 0, 0, 0, 0],
    ];
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
    let forms: [&[u8]; 6] = [&[0xC3], &[0xF3, 0xC3], &[0x48, 0xC3], &[0xC2, 8, 0], &[0xC2, 0x20, 0], &[0xC2, 0, 1]];
    for code in forms {
        maker.add(Form::new("returns", code).needing(Needs::TARGETS));
    }
    maker.add(Form::new("returns", &[0x48, 0xCB]).needing(Needs::FAR));
    maker.add(Form::new("returns", &[0x48, 0xCA, 16, 0]).needing(Needs::FAR));
}
