//! Windows: what a jump displaces, and where it can lead. That the copy does the same as the original is tested on the
//! processor, in `testkit`.
#![cfg(feature = "decode")]

use isa::x86::{BREAKPOINT, JUMP, NoWindow, Privilege, Window, window};

const ADDR: u64 = 0x5555_0000_1000;

fn at(code: &[u8]) -> Result<Window, NoWindow> {
    window(code, ADDR, ADDR, Privilege::User)
}

#[test]
fn one_long_instruction_is_a_window_without_boundaries() {
    let window = at(&[0xB8, 1, 2, 3, 4, 0xC3]).unwrap(); // mov eax, imm32; ret
    assert_eq!((window.len(), window.interior().count()), (5, 0));
    let target = ADDR + 0x1234_5678;
    assert_eq!(window.target(target..u64::MAX), Some(target));
    assert_eq!(window.jump(target), Some([JUMP, 0x73, 0x56, 0x34, 0x12]));
}

#[test]
fn a_function_that_switches_stacks_gets_a_jump_at_its_beginning_only() {
    // mov rax, rsp; X; mov eax, imm32; mov eax, imm32; ret
    let around = |switch: &[u8]| {
        let code = [&[0x48, 0x89, 0xE0], switch, &[0xB8, 1, 2, 3, 4, 0xB8, 1, 2, 3, 4, 0xC3]].concat();
        let inside = ADDR + 3 + switch.len() as u64;
        (
            window(&code, ADDR, ADDR, Privilege::User).is_ok(),
            window(&code, ADDR, inside, Privilege::User).map(|w| w.len()),
        )
    };
    let switches: [&[u8]; 5] =
        [&[0x48, 0x89, 0xFC], &[0x48, 0x8B, 0x27], &[0x48, 0x94], &[0x5C], &[0x48, 0x8D, 0x67, 8]];
    for switch in switches {
        assert_eq!(around(switch), (true, Err(NoWindow::Stack { at: ADDR + 3 })), "{switch:02x?}");
    }
    // mov rsp, rbp; sub rsp, 16; and rsp, -16; lea rsp, [rbp-8]; lea rsp, [r10-8]; leave
    let own: [&[u8]; 6] = [
        &[0x48, 0x89, 0xEC],
        &[0x48, 0x83, 0xEC, 0x10],
        &[0x48, 0x83, 0xE4, 0xF0],
        &[0x48, 0x8D, 0x65, 0xF8],
        &[0x49, 0x8D, 0x62, 0xF8],
        &[0xC9],
    ];
    for own in own {
        assert_eq!(around(own), (true, Ok(5)), "{own:02x?}");
    }
}

#[test]
fn a_window_ends_with_an_instruction() {
    let window = at(&[0x55, 0x48, 0x89, 0xE5, 0x48, 0x83, 0xEC, 0x10, 0xC3]).unwrap(); // push; mov; sub rsp, 16; ret
    assert_eq!(window.len(), 8);
    assert_eq!(window.interior().collect::<Vec<_>>(), [ADDR + 1, ADDR + 4]);
}

#[test]
fn every_boundary_inside_the_jump_is_a_breakpoint() {
    // All compositions of five bytes from instructions of 1 to 4 bytes: nop, xchg eax eax, nop dword [rax], and its like.
    let sizes: [&[u8]; 4] = [&[0x90], &[0x66, 0x90], &[0x0F, 0x1F, 0x00], &[0x0F, 0x1F, 0x40, 0x00]];
    for choice in 0..4_usize.pow(5) {
        let mut code: Vec<u8> = (0..5).flat_map(|i| sizes[choice / 4_usize.pow(i) % 4].to_vec()).collect();
        code.push(0xC3);
        let window = at(&code).unwrap();
        let target = window.target(ADDR - (1 << 30)..ADDR + (1 << 30)).unwrap();
        let jump = window.jump(target).unwrap();
        for boundary in window.interior() {
            assert_eq!(jump[(boundary - ADDR) as usize], BREAKPOINT, "{code:02x?} {jump:02x?}");
        }
        // What stands there leads there.
        let rel = i32::from_le_bytes([jump[1], jump[2], jump[3], jump[4]]);
        assert_eq!((ADDR + 5).wrapping_add_signed(i64::from(rel)), target);
    }
}

#[test]
fn the_lowest_target_is_found() {
    // Boundaries at 1 and 4: the first and the last byte of the displacement are given.
    let window = at(&[0x55, 0x48, 0x89, 0xE5, 0xC9, 0xC3]).unwrap();
    let from = ADDR - (1 << 30);
    let found = window.target(from..ADDR).unwrap();
    let lowest = (found - 0x10_0000..ADDR).find(|&target| window.jump(target).is_some());
    assert_eq!(Some(found), lowest);
    // The next one behind it, and none behind the last.
    assert_eq!(window.target(found + 1..ADDR), Some(found + 0x100));
    let last = found + 0xFF_FF00;
    assert_eq!((window.jump(last).is_some(), window.target(last + 1..ADDR)), (true, None));
    assert_eq!(window.target(found..found), None);
}

#[test]
fn the_ends_of_the_address_space_are_ends() {
    let low = window(&[0x55, 0x48, 0x89, 0xE5, 0xC9, 0xC3], 0x40_0000, 0x40_0000, Privilege::User).unwrap();
    // The displacement is negative, and 0x34000000 below there is nothing.
    assert_eq!(low.target(0..1 << 47), None);
    let code = [0xB8, 1, 2, 3, 4, 0xC3];
    let top = window(&code, u64::MAX - 0xF, u64::MAX - 0xF, Privilege::Kernel).unwrap();
    assert_eq!(top.target(0..u64::MAX), Some(u64::MAX - 10 - (1 << 31) + 1 - 1));
}

#[test]
fn what_cannot_be_displaced_is_refused_by_its_rule() {
    let rule = |code: &[u8]| at(code).unwrap_err().rule();
    assert_eq!(rule(&[0x90, 0xC3]), "short");
    assert_eq!(rule(&[0x90, 0xCC, 0x90, 0x90, 0x90, 0xC3]), "breakpoint");
    // call next; …: returns into the window.
    assert_eq!(rule(&[0xFF, 0xD0, 0x48, 0x89, 0xC3, 0xC3]), "call");
    // push; mov; …; jmp to the mov.
    assert_eq!(rule(&[0x55, 0x48, 0x89, 0xE5, 0x5D, 0xEB, 0xFA, 0xC3]), "target");
    // A jump to the window's beginning is none into it.
    assert!(at(&[0x55, 0x48, 0x89, 0xE5, 0x5D, 0xEB, 0xF9, 0xC3]).is_ok());
    assert_eq!(rule(&[0xB8, 1, 2, 3, 4, 0x06, 0xC3]), "lost");
    assert_eq!(rule(&[]), "short");
}

#[test]
fn a_call_may_be_the_last_instruction() {
    let window = at(&[0x90, 0x90, 0x90, 0xFF, 0xD0, 0xC3]).unwrap(); // nop; nop; nop; call rax
    let body = window.body(ADDR + 0x1000).unwrap();
    // The address that it pushes is the original's.
    let returns = (ADDR + 5).to_le_bytes();
    assert!(body.code.windows(8).any(|bytes| bytes == returns), "{:02x?}", body.code);
}

#[test]
fn an_address_outside_of_the_function_has_no_window() {
    let code = [0x90; 8];
    assert_eq!(window(&code, ADDR, ADDR + 8, Privilege::User).unwrap_err().rule(), "short");
    assert_eq!(window(&code, ADDR, ADDR - 1, Privilege::User).unwrap_err().rule(), "short");
}
