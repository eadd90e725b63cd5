// From real mode to the high half, for processors other than the first. Runs at physical 0x8000; every address in it
// counts from `ap_trampoline`. Nothing here is written while it runs: the page is read-only once paging is on, and
// the descriptors are marked accessed already.

.set AT, 0x8000

.section .rodata.ap_trampoline, "a"
.balign 16
.global ap_trampoline, ap_trampoline_end, ap_trampoline_cr3
ap_trampoline:
.code16
    cli
    cld
    xor ax, ax
    mov ds, ax
    // lgdt [AT + pointer]: by hand, as the assembler wants an address of its own.
    .byte 0x66, 0x0f, 0x01, 0x16
    .word AT + ap_gdt_pointer - ap_trampoline
    mov eax, cr4
    or eax, 1 << 5              // PAE
    mov cr4, eax
    // mov eax, [AT + cr3]
    .byte 0x66, 0xa1
    .word AT + ap_trampoline_cr3 - ap_trampoline
    mov cr3, eax
    mov ecx, 0xc0000080         // EFER
    rdmsr
    or eax, (1 << 8) | (1 << 11) // LME, NXE
    wrmsr
    mov eax, cr0
    // CD and NW are set after INIT; caches on.
    and eax, 0x9fffffff
    or eax, (1 << 31) | (1 << 16) | 1 // PG, WP, PE
    mov cr0, eax
    // jmp 8:AT + long
    .byte 0x66, 0xea
    .long AT + ap_long - ap_trampoline
    .word 8
.code64
ap_long:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    movabs rax, offset ap_start
    jmp rax

.balign 8
ap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // 64-bit code
ap_gdt_pointer:
    .word . - ap_gdt - 1
    .long AT + ap_gdt - ap_trampoline
.balign 4
ap_trampoline_cr3:
    .long 0
ap_trampoline_end:

.section .text.ap_start, "ax"
.type ap_start, @function
ap_start:
    mov rsp, [AP_STACK]
    xor ebp, ebp
    call ap_main
    ud2
.size ap_start, . - ap_start
.text
