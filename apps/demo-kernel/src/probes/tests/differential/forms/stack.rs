//! What only the stack, flags and segments are about.

use super::{Maker, PLACES, RSP, WIDTHS, coded, sized};
use crate::probes::tests::differential::form::{Coded, Form, Needs};

pub(super) fn all(maker: &mut Maker) {
    stack(maker);
    flags(maker);
    segments(maker);
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
    maker.plain(
        "stack",
        &[
            &[0x6A, 0x08],
            &[0x6A, 0xFF],
            &[0x68, 0x78, 0x56, 0x34, 0x92],
            &[0x66, 0x68, 0x34, 0x12],
            &[0x66, 0x6A, 0x80],
            &[0xC8, 0, 0, 0],
            &[0xC8, 0, 0, 1],
            &[0xC8, 0, 0, 2],
            &[0xC8, 0, 0, 5],
            &[0xC9],
            &[0x48, 0x83, 0xC4, 0x18],
            &[0x48, 0x83, 0xE4, 0xF0],
            &[0x48, 0x8D, 0x64, 0x24, 0x08],
            &[0x48, 0x89, 0xEC],
            &[0x48, 0x87, 0xE5],
        ],
    );
    let larger: [&[u8]; 3] = [&[0xC8, 0x10, 0, 0], &[0xC8, 0x20, 0, 2], &[0x48, 0x83, 0xEC, 0x20]];
    larger.into_iter().for_each(|code| maker.add(Form::new("stack", code).needing(Needs::ALLOCATES)));
}

fn flags(maker: &mut Maker) {
    maker.plain(
        "flags",
        &[&[0x9C], &[0x66, 0x9C], &[0x9F], &[0x9E], &[0xF5], &[0xF8], &[0xF9], &[0xFA], &[0xFB], &[0xFC], &[0xFD]],
    );
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
    maker.plain(
        "segments",
        &[
            &[0x0F, 0xA0],
            &[0x0F, 0xA8],
            &[0x0F, 0x00, 0xE0],
            &[0x0F, 0x00, 0xE8],
            &[0x0F, 0x20, 0xC2],
            &[0x0F, 0x20, 0xDA],
            &[0x41, 0x0F, 0x20, 0xE2],
            &[0x0F, 0x21, 0xF8],
            &[0x0F, 0x01, 0x3B],
            &[0xF3, 0x0F, 0x1E, 0xFA],
            &[0x90],
            &[0x66, 0x90],
            &[0x0F, 0x1F, 0x44, 0x00, 0x00],
            &[0x66, 0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0],
        ],
    );
}
