/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/*
 * Functions to put probes on: `long f(long x)`, which returns x + 1. Whoever compares other probes with Linux's uses
 * the same instructions. All have the body
 *
 *     48 8d 47 01     lea 1(%rdi),%rax
 *     48 89 c1        mov %rax,%rcx
 *     48 89 ca        mov %rcx,%rdx
 *                     ret
 *
 * and differ in their first instruction, the one that is probed:
 *
 *     target_lea      48 8d 47 01  lea 1(%rdi),%rax   the body's own: a copy of it is executed, and then int3
 *     target_push     55           push %rbp          so too; the body is followed by `pop %rbp`
 *     target_nop      90           nop                so too, in Linux
 *     target_jmp      eb 00        jmp 1f; 1:         emulated
 *     target_call     e8 rel32     call 1f; ret; 1:   emulated; the body is called and returns to `ret`
 *     target_fentry   e8 rel32     call __fentry__    what compilers begin functions with that can be traced;
 *                                                     ftrace makes a five-byte nop of it, and probes on it are its
 *
 * They are assembly so that all but the last have no `__fentry__`: a probe on them is a breakpoint, or a jump. `ret`
 * is the kernel's macro, with CONFIG_RETHUNK a jump to the return thunk. Probed and unprobed calls both pay for it.
 */
#include <linux/linkage.h>
#include "targets.h"

/*
 * Each copy has a symbol of its own: Linux decodes from the last symbol before a probe. The assembler does not tell
 * capitals apart, so that no macro may be called LEA.
 */
.macro BEGIN name
	.type	\name, @function
\name:
.endm

.macro END name
	RET
	.size	\name, . - \name
.endm

.macro BODY
	lea	1(%rdi), %rax
	mov	%rax, %rcx
	mov	%rcx, %rdx
.endm

.macro ONE_LEA n
	BEGIN	lea_\n
	BODY
	END	lea_\n
.endm

.macro ONE_PUSH n
	BEGIN	push_\n
	push	%rbp
	BODY
	pop	%rbp
	END	push_\n
.endm

.macro ONE_NOP n
	BEGIN	nop_\n
	nop
	BODY
	END	nop_\n
.endm

.macro ONE_JMP n
	BEGIN	jmp_\n
	.byte	0xeb, 0x00
	BODY
	END	jmp_\n
.endm

.macro ONE_CALL n
	BEGIN	call_\n
	call	called_\n
	END	call_\n
	BEGIN	called_\n
	BODY
	END	called_\n
.endm

/* The section tells ftrace of the call, as `gcc -mrecord-mcount` does. */
.macro ONE_FENTRY n
	BEGIN	fentry_\n
	call	__fentry__
	BODY
	END	fentry_\n
	.pushsection __mcount_loc, "a", @progbits
	.quad	fentry_\n
	.popsection
.endm

.macro ONE_FILLER n
	BEGIN	filler_\n
	lea	1(%rdi), %rax
	END	filler_\n
.endm

.macro SERIES symbol macro count size
	.balign	64
	.globl	\symbol
\symbol:
	.set	i, 0
	.rept	\count
	.balign	\size
	\macro	%i
	.set	i, i + 1
	.endr
.endm

	.text
	.altmacro
	SERIES	target_lea ONE_LEA COPIES COPY_SIZE
	SERIES	target_push ONE_PUSH COPIES COPY_SIZE
	SERIES	target_nop ONE_NOP COPIES COPY_SIZE
	SERIES	target_jmp ONE_JMP COPIES COPY_SIZE
	SERIES	target_call ONE_CALL COPIES COPY_SIZE
	SERIES	target_fentry ONE_FENTRY COPIES COPY_SIZE
	SERIES	filler ONE_FILLER FILLERS FILLER_SIZE
