//! What is emulated, copied and refused, by instruction class. The corpus has the many; here are
//! those that decide a rule.
#![cfg(feature = "decode")]

use isa::x86::{Flow, Image, Plan, Privilege, Refusal, Repair, Verdict, analyse};

const ADDR: u64 = 0x40_1000;

fn user(bytes: &[u8]) -> Result<Verdict, Refusal> {
    analyse(bytes, ADDR, Privilege::User).map(|analysis| analysis.verdict)
}

fn kernel(bytes: &[u8]) -> Result<Verdict, Refusal> {
    analyse(bytes, ADDR, Privilege::Kernel).map(|analysis| analysis.verdict)
}

fn plan(bytes: &[u8]) -> Plan {
    match user(bytes) {
        Ok(Verdict::Slot(plan)) => plan,
        other => panic!("{other:?}"),
    }
}

fn rule(verdict: Result<Verdict, Refusal>) -> &'static str {
    verdict.err().map_or("none", |refusal| refusal.rule())
}

#[test]
fn call_through_the_global_offset_table_is_emulated() {
    assert!(matches!(user(&[0xFF, 0x15, 0, 0, 0, 0]), Ok(Verdict::Emulate(_)))); // call [rip]
}

#[test]
fn call_with_both_66_and_rex_w_is_a_call() {
    let call = [0x66, 0x66, 0x48, 0xE8, 0, 1, 0, 0]; // as for __tls_get_addr
    let analysis = analyse(&call, ADDR, Privilege::User).unwrap();
    assert_eq!((analysis.len, analysis.flow), (8, Flow::Call(ADDR + 0x108)));
}

#[test]
fn near_branches_with_a_16_bit_operand_are_refused() {
    for bytes in [&[0x66_u8, 0xE8, 0, 0, 0, 0][..], &[0x66, 0xC3], &[0x66, 0x74, 0], &[0x66, 0xFF, 0xE0]] {
        assert_eq!(rule(user(bytes)), "operand-size", "{bytes:x?}");
    }
    // REX.W that is not directly before the opcode does not count.
    assert_eq!(rule(user(&[0x48, 0x66, 0xC3])), "operand-size");
}

#[test]
fn loops_with_a_repeat_prefix_are_refused_unless_they_ignore_it() {
    assert_eq!(rule(user(&[0xF2, 0xE1, 0])), "repeat-prefix"); // loope
    assert_eq!(rule(user(&[0xF3, 0x67, 0xE0, 0])), "repeat-prefix"); // loopne
    assert!(user(&[0xF3, 0xE2, 0]).is_ok()); // loop
}

#[test]
fn syscall_is_copied_with_a_repair_of_rcx() {
    let plan = plan(&[0x0F, 0x05]);
    assert_eq!((plan.repair(), plan.boostable(), plan.steppable()), (Repair::Rcx, true, false));
    assert_eq!(rule(kernel(&[0x0F, 0x05])), "privilege-transition");
}

#[test]
fn moves_to_ss_hold_back_the_trap_flag() {
    assert!(!plan(&[0x8E, 0xD0]).steppable()); // mov ss, eax
    assert!(plan(&[0x8E, 0xD8]).steppable()); // mov ds, eax
}

#[test]
fn what_always_faults_in_a_program_is_refused_there_and_copied_in_a_kernel() {
    for bytes in [&[0xF4_u8][..], &[0x0F, 0x30], &[0x0F, 0x22, 0xD8], &[0x0F, 0x01, 0xF8]] {
        assert_eq!(rule(user(bytes)), "privileged", "{bytes:x?}"); // hlt, wrmsr, mov cr3, swapgs
        assert!(matches!(kernel(bytes), Ok(Verdict::Slot(_))), "{bytes:x?}");
    }
}

#[test]
fn io_instructions_are_copied_since_a_program_may_have_permission() {
    for bytes in [&[0xEC_u8][..], &[0xEE], &[0x6C], &[0xFA], &[0xFB]] {
        assert!(matches!(user(bytes), Ok(Verdict::Slot(_))), "{bytes:x?}"); // in, out, insb, cli, sti
    }
}

#[test]
fn cli_sti_and_popf_are_emulated_in_a_kernel() {
    for bytes in [[0xFA], [0xFB], [0x9D]] {
        assert!(matches!(kernel(&bytes), Ok(Verdict::Emulate(_))), "{bytes:x?}");
    }
}

#[test]
fn returns_from_interrupts_are_copied_in_a_program_and_refused_in_a_kernel() {
    let iretq = [0x48, 0xCF];
    assert!(!plan(&iretq).boostable());
    assert_eq!(rule(kernel(&iretq)), "privilege-transition");
}

#[test]
fn breakpoints_interrupts_and_undefined_instructions_are_refused() {
    let refused = [
        (&[0xCC_u8][..], "breakpoint"),
        (&[0xF1], "breakpoint"),
        (&[0xCD, 3], "interrupt"),
        (&[0x0F, 0x0B], "invalid-opcode"),
        (&[0x0F, 0xFF, 0xC0], "invalid-opcode"),
        (&[0xFF, 0x18], "far-call"),
        (&[0x06], "undecodable"),
        (&[0xE8, 0], "truncated"),
        (&[], "truncated"),
    ];
    for (bytes, expected) in refused {
        assert_eq!(rule(user(bytes)), expected, "{bytes:x?}");
    }
}

#[test]
fn int_80_is_a_system_call_in_a_program_only() {
    assert!(plan(&[0xCD, 0x80]).boostable());
    assert_eq!(rule(kernel(&[0xCD, 0x80])), "interrupt");
}

#[test]
fn a_refusal_says_where_what_and_why() {
    let refusal = user(&[0xFF, 0x18]).unwrap_err();
    assert_eq!(refusal.to_string(), "0x401000 (ff 18): a far call pushes its own code segment and address");
    assert_eq!(refusal.addr(), ADDR);
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    let mut random = 1_u64;
    let mut bytes = [0_u8; 16];
    for _ in 0..300_000 {
        for byte in &mut bytes {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (random >> 56) as u8;
        }
        let addr = if random & 1 == 0 { random } else { u64::MAX - (random >> 60) };
        for privilege in [Privilege::User, Privilege::Kernel] {
            let Ok(analysis) = analyse(&bytes, addr, privilege) else { continue };
            let at = random.rotate_left(17);
            if let Ok(image) = analysis.image(at) {
                assert!(image.len() < Image::CAPACITY, "{image:?}");
                let next = addr.wrapping_add(u64::from(analysis.len));
                assert!([addr, next].contains(&image.original(0)), "{image:?}");
            }
        }
    }
}
