.macro function name
.section .text.interrupts_\name, "ax", @progbits
.globl interrupts_\name
.type interrupts_\name, @function
interrupts_\name:
.endm
.macro end name
.size interrupts_\name, . - interrupts_\name
.endm

// Sets the flags to its first argument, executes one instruction, the probed one, and gives the flags behind it.
.macro flags name, instruction:vararg
function \name
    pushfq
    pop rdx
    mov rcx, rsp
    mov esi, edi
    push rdi
    push rdi
    popfq
    \instruction
7:  pushfq
    pop rax
    mov rsp, rcx
    push rdx
    popfq
    ret
end \name
.endm

flags flags_nop, nop
flags flags_lea, lea r8, [rdi + rcx]
flags flags_push, push rdi
flags flags_load, mov r8, [rsp]
flags flags_jmp, jmp 7f
flags flags_add, add esi, 1
flags flags_adc, adc esi, esi
flags flags_popfq, popfq
flags flags_pushfq, pushfq
flags flags_cli, cli
flags flags_sti, sti
flags flags_cld, cld
flags flags_std, std

// Adds one, in a copied instruction.
function hot
    lea rax, [rdi + 1]
    ret
end hot

// Fills rcx bytes: nearly all its time passes in one instruction. The arguments are (address, value, count).
function fill
    mov rax, rsi
    mov rcx, rdx
    rep stosb
    ret
end fill

function called_by_nmi
    lea rax, [rdi + 1]
    ret
end called_by_nmi
// Writes a word to an address: by one instruction, and by one that repeats itself. (address, word)
function store
    mov [rdi], esi
    ret
end store

function store_string
    mov eax, esi
    mov ecx, 1
    rep stosd
    ret
end store_string
.text
.purgem function
.purgem end
.purgem flags
