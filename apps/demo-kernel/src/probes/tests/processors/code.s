// Functions that give their argument plus one. The probe sits on the first instruction, of a kind that the name tells.

.macro function name
.section .text.processors_\name, "ax", @progbits
.globl processors_\name
.type processors_\name, @function
processors_\name:
.endm
.macro end name
.size processors_\name, . - processors_\name
.endm

function nop
    nop
    lea rax, [rdi + 1]
    ret
end nop

function push
    push rdi
    pop rax
    inc rax
    ret
end push

function lea
    lea rax, [rdi + 1]
    ret
end lea

function load
    mov rax, [rip + processors_one]
    add rax, rdi
    ret
end load

function jmp
    jmp 2f
    ud2
2:  lea rax, [rdi + 1]
    ret
end jmp

function call
    call 2f
    inc rax
    ret
2:  mov rax, rdi
    ret
end call

function add
    add rdi, 1
    mov rax, rdi
    ret
end add

// Fifty places for probes, and none that is jumped to.
function fifty
    xor eax, eax
    .rept 49
    add rax, rdi
    .endr
    ret
end fifty

.section .rodata.processors_one, "a", @progbits
.balign 8
processors_one: .quad 1
.text
.purgem function
.purgem end
