// Functions to put probes on, the same as Linux's probes are measured on (`benches/linux-guest/targets.S`, which see):
// `f(x)` returns x + 1. They differ in their first instruction, the one that is probed.
//
// Each copy of each has a symbol of its own, so that it can be the entry of a return probe. The fillers are only there
// to be probed: many instructions in few functions, because a probe's place is checked from its function's start.

.macro bench_begin name
.type \name, @function
\name:
.endm

.macro bench_end name
    ret
.size \name, . - \name
.endm

.macro bench_body
    lea rax, [rdi + 1]
    mov rcx, rax
    mov rdx, rcx
.endm

.altmacro

.macro bench_one_lea n
    bench_begin bench_lea_\n
    bench_body
    bench_end bench_lea_\n
.endm

.macro bench_one_push n
    bench_begin bench_push_\n
    push rbp
    bench_body
    pop rbp
    bench_end bench_push_\n
.endm

.macro bench_one_nop n
    bench_begin bench_nop_\n
    nop
    bench_body
    bench_end bench_nop_\n
.endm

// `jmp` to the next instruction.
.macro bench_one_jmp n
    bench_begin bench_jmp_\n
    .byte 0xeb, 0x00
    bench_body
    bench_end bench_jmp_\n
.endm

.macro bench_one_call n
    bench_begin bench_call_\n
    call bench_called_\n
    bench_end bench_call_\n
    bench_begin bench_called_\n
    bench_body
    bench_end bench_called_\n
.endm

.macro bench_one_filler n
    bench_begin bench_filler_\n
    .rept {filler_length}
    lea rax, [rdi + 1]
    .endr
    bench_end bench_filler_\n
.endm

.macro bench_series symbol, one, count, size
    .balign \size
.global \symbol
\symbol:
    .set bench_index, 0
    .rept \count
    .balign \size
    \one %bench_index
    .set bench_index, bench_index + 1
    .endr
.endm

.pushsection .text.bench_targets, "ax", @progbits
    bench_series bench_lea, bench_one_lea, {copies}, {copy_size}
    bench_series bench_push, bench_one_push, {copies}, {copy_size}
    bench_series bench_nop, bench_one_nop, {copies}, {copy_size}
    bench_series bench_jmp, bench_one_jmp, {copies}, {copy_size}
    bench_series bench_call, bench_one_call, {copies}, {copy_size}
    bench_series bench_fillers, bench_one_filler, {filler_count}, {filler_size}
.popsection
.noaltmacro
