//! What the machine has beside the local interrupt controller: the 8259s, silenced, and the 8254, as a clock to
//! calibrate by.

use x86_64::instructions::port::Port;

/// The 8254's input, in Hz.
const PIT_HZ: u64 = 1_193_182;

fn outb(port: u16, value: u8) {
    // SAFETY: the ports below belong to the two 8259s, the 8254's channel 2 and its gate; none reaches memory, and
    // interrupts of theirs stay masked.
    unsafe { Port::<u8>::new(port).write(value) }
}

fn inb(port: u16) -> u8 {
    // SAFETY: as in `outb`; reading port 0x61 has no effect.
    unsafe { Port::<u8>::new(port).read() }
}

/// Moves the 8259s' vectors off the exceptions and masks all their lines.
pub(crate) fn silence() {
    for (command, data, first, cascade) in [(0x20, 0x21, 0xe0, 4), (0xa0, 0xa1, 0xe8, 2)] {
        outb(command, 0x11);
        outb(data, first);
        outb(data, cascade);
        outb(data, 1);
        outb(data, 0xff);
    }
}

/// Busy for `milliseconds` (at most 54) by the 8254's channel 2; `running` is called when it has begun.
pub(crate) fn wait(milliseconds: u64, running: impl FnOnce()) {
    let counts = (PIT_HZ * milliseconds / 1000).min(0xffff) as u16;
    let [low, high] = counts.to_le_bytes();
    // Gate low, speaker off; mode 0 counts down once and then raises bit 5 of port 0x61.
    outb(0x61, inb(0x61) & !3);
    outb(0x43, 0xb0);
    outb(0x42, low);
    outb(0x42, high);
    outb(0x61, inb(0x61) & !2 | 1);
    running();
    while inb(0x61) & 0x20 == 0 {
        core::hint::spin_loop();
    }
}
