// context_switch(rdi = where to keep this thread's stack pointer, rsi = the next thread's stack pointer,
//                rdx = the next thread)
//
// `current` changes at the same place as the stack: whoever returns from here is the thread it was at the call.

.text
.global context_switch
.type context_switch, @function
context_switch:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov [rdi], rsp
    mov rsp, rsi
    mov gs:[{current}], rdx
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
.size context_switch, . - context_switch
