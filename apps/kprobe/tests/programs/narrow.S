# narrow: a 32-bit program without a library; ends with status 5.
.globl _start
.globl work
work:
    push %ebp
    mov %esp, %ebp
    pop %ebp
    ret
_start:
    call work
    mov $1, %eax
    mov $5, %ebx
    int $0x80
