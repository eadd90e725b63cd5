// The trap stubs: from the processor's frame to a `Frame` and back.
//
// A `Frame`, from low addresses: rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15, rip, flags (`isa::x86::Regs`), vector,
// error, and what the processor pushed: rip, cs, flags, rsp, ss. In 64-bit mode the processor aligns the stack to 16
// before it pushes, so that with 25 words a frame begins 8 bytes off, which the call wants.

.section .kprobes.text, "ax"

// From vector, error, rip, cs, flags, rsp, ss on the stack to the whole frame.
.macro save_registers
    push [rsp + 4*8]            // flags
    push [rsp + 3*8]            // rip
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rdi
    push rsi
    push rbp
    push [rsp + 18*8]           // rsp
    push rbx
    push rdx
    push rcx
    push rax
    cld
.endm

// Back: rip, flags and rsp of the registers become the processor's.
.macro restore_registers
    pop rax
    pop rcx
    pop rdx
    pop rbx
    pop [rsp + 18*8]            // rsp; the address counts from behind the popped word
    pop rbp
    pop rsi
    pop rdi
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    pop [rsp + 3*8]             // rip
    pop [rsp + 4*8]             // flags
    add rsp, 2*8
    iretq
.endm

.macro call_and_return function
    save_registers
    mov rdi, rsp
    sub rsp, 8
    call \function
    add rsp, 8
    restore_registers
.endm

// #BP: between the interrupted stack and the frame are 48 bytes and more, for a handler that emulates a push (Linux
// leaves such a gap in `idtentry`, for int3 alone).
.global trap_stub_breakpoint
.type trap_stub_breakpoint, @function
trap_stub_breakpoint:
    sub rsp, 16
    .rept 5
    push [rsp + 6*8]
    .endr
    push 0
    push 3
    save_registers
    // With a gap of 56 bytes the frame is aligned for the call as it is.
    mov rdi, rsp
    call trap_breakpoint
    restore_registers
.size trap_stub_breakpoint, . - trap_stub_breakpoint

// #DB.
.global trap_stub_debug
.type trap_stub_debug, @function
trap_stub_debug:
    push 0
    push 1
    call_and_return trap_debug
.size trap_stub_debug, . - trap_stub_debug

// NMI: comes in on a stack of its own and leaves it at once for the interrupted one, which in a kernel without ring 3
// is always good. The `iretq` of a #BP or a fault inside the handler lets the next NMI in, which would overwrite a
// frame that was still there.
.global trap_stub_nmi
.type trap_stub_nmi, @function
trap_stub_nmi:
    push rax
    mov rax, [rsp + 4*8]        // the interrupted rsp
    and rax, -16
    .irp offset, 1, 2, 3, 4, 5
    push [rsp + (6 - \offset)*8]
    pop [rax - \offset*8]
    .endr
    push [rsp]
    pop [rax - 6*8]
    lea rsp, [rax - 6*8]
    pop rax
    push 0
    push 2
    call_and_return trap_nmi
.size trap_stub_nmi, . - trap_stub_nmi

.macro fault_stub vector, has_error
.type trap_stub_\vector, @function
trap_stub_\vector:
    .if \has_error == 0
    push 0
    .endif
    push \vector
    jmp trap_common_fault
.size trap_stub_\vector, . - trap_stub_\vector
.endm

    fault_stub 0, 0
    fault_stub 4, 0
    fault_stub 5, 0
    fault_stub 6, 0
    fault_stub 7, 0
    fault_stub 8, 1
    fault_stub 9, 0
    fault_stub 10, 1
    fault_stub 11, 1
    fault_stub 12, 1
    fault_stub 13, 1
    fault_stub 14, 1
    fault_stub 15, 0
    fault_stub 16, 0
    fault_stub 17, 1
    fault_stub 18, 0
    fault_stub 19, 0
    fault_stub 20, 0
    fault_stub 21, 1
    fault_stub 22, 0
    fault_stub 23, 0
    fault_stub 24, 0
    fault_stub 25, 0
    fault_stub 26, 0
    fault_stub 27, 0
    fault_stub 28, 0
    fault_stub 29, 1
    fault_stub 30, 1
    fault_stub 31, 0

.type trap_common_fault, @function
trap_common_fault:
    call_and_return trap_fault
.size trap_common_fault, . - trap_common_fault

.macro interrupt_stub vector
.type trap_stub_\vector, @function
trap_stub_\vector:
    push 0
    push \vector
    jmp trap_common_interrupt
.size trap_stub_\vector, . - trap_stub_\vector
.endm

    interrupt_stub 64
    interrupt_stub 65
    interrupt_stub 66
    interrupt_stub 255

.type trap_common_interrupt, @function
trap_common_interrupt:
    call_and_return trap_interrupt
.size trap_common_interrupt, . - trap_common_interrupt

// Vector and stub, for the descriptor table.
.section .rodata.trap_stubs, "a"
.balign 8
.global trap_stubs, trap_stubs_end
trap_stubs:
    .quad 1, trap_stub_debug
    .quad 2, trap_stub_nmi
    .quad 3, trap_stub_breakpoint
    .irp vector, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 64, 65, 66, 255
    .quad \vector, trap_stub_\vector
    .endr
trap_stubs_end:
.text
