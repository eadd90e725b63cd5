# What is called and probed. Every function is `long f(long, const char *)`; they differ in what they begin with, where
# probes go.

.macro function name
    .text
    .p2align 6
    .globl \name
    .type \name, @function
\name:
.endm
.macro end name
    .size \name, . - \name
.endm

function t_push
    push %rbp
    mov %rsp, %rbp
    lea 1(%rdi), %rax
    pop %rbp
    ret
end t_push

# The same once more, for a second thread.
function t_other
    push %rbp
    mov %rsp, %rbp
    lea 1(%rdi), %rax
    pop %rbp
    ret
end t_other

# Calls itself until its argument is used up: so many calls are on the stack at once.
function t_nest
    push %rbp
    mov %rsp, %rbp
    dec %rdi
    jle 1f
    call t_nest
1:  lea 1(%rdi), %rax
    pop %rbp
    ret
end t_nest

function t_mov
    mov %rdi, %rax
    inc %rax
    ret
end t_mov

function t_lea
    lea t_lea(%rip), %rax
    add %rdi, %rax
    ret
end t_lea

# uftrace takes a program with such a function for one that the compiler has prepared for it; so it gets another nop.
function t_nop5
.ifdef for_uftrace
    .byte 0x66
.endif
    .byte 0x0f, 0x1f, 0x44, 0x00, 0x00
    lea 1(%rdi), %rax
    ret
end t_nop5

function t_jmp
    jmp 1f
    int3
1:  lea 1(%rdi), %rax
    ret
end t_jmp

function t_call
    call 1f
    inc %rax
    ret
1:  mov %rdi, %rax
    ret
end t_call

# A system call that does nothing: the floor of an entry into the kernel.
function t_getppid
    mov $110, %eax
    syscall
    ret
end t_getppid

# A breakpoint whose handler does nothing: the floor of a probe that is a breakpoint. The kernel leaves the instruction
# pointer behind the int3: a handler that returns has stepped over it.
function t_trap
    int3
    ret
end t_trap
    .globl trap_handler, trap_restorer
trap_handler:
    ret
trap_restorer:
    mov $15, %eax
    syscall

# t_push as a probe by jump leaves it: the jump, whose detour runs what was displaced and jumps back. They differ in what
# else the detour does; the detours lie in pages of their own, as a tracer's would.
.macro jumping name
function t_\name
    jmp detour_\name
    .byte 0xcc, 0xcc, 0xcc
back_\name:
    pop %rbp
    ret
end t_\name
    .section detours, "ax", @progbits
    .p2align 6
detour_\name:
.endm
.macro displaced name
    push %rbp
    mov %rsp, %rbp
    lea 1(%rdi), %rax
    jmp back_\name
.endm
.macro save_registers
    pushfq
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rsp
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
.endm
.macro call_handler
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call handler
    mov %rbp, %rsp
.endm
.macro restore_registers
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    add $8, %rsp
    pop %rbx
    pop %rdx
    pop %rcx
.endm

jumping empty
    displaced empty

# Counts in the detour itself; at a function's entry the flags are nobody's.
jumping counter
    incq hits(%rip)
    displaced counter

# Saves all general registers and the flags, and calls a handler that counts.
jumping registers
    save_registers
    call_handler
    restore_registers
    pop %rax
    popfq
    displaced registers

# The same, but only the flags that arithmetic sets are put back, without popfq, which costs some nanoseconds.
jumping arithmetic
    save_registers
    call_handler
    restore_registers
    btl $11, 8(%rsp)
    setc %al
    add $127, %al
    mov 8(%rsp), %ah
    sahf
    pop %rax
    lea 8(%rsp), %rsp
    displaced arithmetic

    .section .note.GNU-stack, "", @progbits
