// The PVH entry (Xen's docs/misc/pvh.pandoc): 32-bit protected mode, no paging, ebx = hvm_start_info.
//
// Builds the page tables with their final protection, so that no page is ever writable and executable in
// long mode, and calls `kernel_main` in the high half. What is mapped:
//
//   0x0010_0000             the `.boot` section, r-x; gone once all processors run
//   0xffff_8000_0000_0000   the first 4 GiB of physical memory, rw- (the direct map), of which the frames of
//                           text, read-only data and the window of executable memory are r--
//   0xffff_ffff_8000_0000   the image: text r-x, rodata r--, data rw-

.set BASE, 0xffffffff80000000
.set P, 1
.set W, 2
.set LARGE, 0x80
.set NX_HIGH, 0x80000000
.set LOW_BYTES, 0x800000        // of the direct map, in small pages: the image lies there
.set EXEC_BYTES, 0x800000       // behind them: mm::exec

.section .note.pvh, "a", @note
.balign 4
    .long 4                     // size of the name
    .long 8                     // size of the entry's address: QEMU reads eight bytes
    .long 18                    // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

.section .bss.page_tables, "aw", @nobits
.balign 4096
.global boot_pml4, boot_identity_pt
boot_pml4:          .skip 4096
boot_identity_pdpt: .skip 4096
boot_identity_pd:   .skip 4096
boot_identity_pt:   .skip 4096
boot_direct_pdpt:   .skip 4096
boot_direct_pd:     .skip 4 * 4096
boot_direct_pt:     .skip 4 * 4096
boot_kernel_pdpt:   .skip 4096
boot_kernel_pd:     .skip 4096
boot_kernel_pt:     .skip 4 * 4096
boot_stack:         .skip 32768
boot_stack_top:

.section .boot, "ax"
.code32

// Small pages [first, end) of the page tables at `table`, which begin at physical address 0.
.macro small_pages table, first, end, low, high
    lea eax, [\first]
    lea esi, [\end]
88: cmp eax, esi
    jae 89f
    mov edx, eax
    shr edx, 9
    mov ecx, eax
    or ecx, \low
    mov dword ptr [edx + \table - BASE], ecx
    mov dword ptr [edx + \table - BASE + 4], \high
    add eax, 4096
    jmp 88b
89:
.endm

// Large pages [first, end) of the page directories at `table`, which begin at physical address 0.
// `end` may be 4 GiB, that is 0.
.macro large_pages table, first, end, low, high
    mov eax, \first
88: mov edx, eax
    shr edx, 18
    mov ecx, eax
    or ecx, \low
    mov dword ptr [edx + \table - BASE], ecx
    mov dword ptr [edx + \table - BASE + 4], \high
    add eax, 0x200000
    cmp eax, \end
    jne 88b
.endm

// `count` entries of the table `upper`, from `index` on, refer to the consecutive tables at `lower`.
.macro tables upper, index, lower, count
    mov eax, offset \lower - BASE + P + W
    mov ecx, offset \upper - BASE + 8 * \index
    mov edx, \count
88: mov dword ptr [ecx], eax
    mov dword ptr [ecx + 4], 0
    add eax, 4096
    add ecx, 8
    dec edx
    jnz 88b
.endm

.global pvh_start
pvh_start:
    cli
    cld

    small_pages boot_identity_pt, boot_start, boot_end, P, 0
    tables boot_identity_pd, 0, boot_identity_pt, 1
    tables boot_identity_pdpt, 0, boot_identity_pd, 1
    tables boot_pml4, 0, boot_identity_pdpt, 1

    small_pages boot_direct_pt, 0, LOW_BYTES, (P + W), NX_HIGH
    small_pages boot_direct_pt, boot_start, boot_end, P, NX_HIGH
    small_pages boot_direct_pt, text_start - BASE, rodata_end - BASE, P, NX_HIGH
    large_pages boot_direct_pd, LOW_BYTES, (LOW_BYTES + EXEC_BYTES), (P + LARGE), NX_HIGH
    large_pages boot_direct_pd, (LOW_BYTES + EXEC_BYTES), 0, (P + W + LARGE), NX_HIGH
    tables boot_direct_pd, 0, boot_direct_pt, 4
    tables boot_direct_pdpt, 0, boot_direct_pd, 4
    tables boot_pml4, 256, boot_direct_pdpt, 1

    small_pages boot_kernel_pt, text_start - BASE, text_end - BASE, P, 0
    small_pages boot_kernel_pt, rodata_start - BASE, rodata_end - BASE, P, NX_HIGH
    small_pages boot_kernel_pt, data_start - BASE, image_end - BASE, (P + W), NX_HIGH
    tables boot_kernel_pd, 0, boot_kernel_pt, 4
    tables boot_kernel_pdpt, 510, boot_kernel_pd, 1
    tables boot_pml4, 511, boot_kernel_pdpt, 1

    mov eax, offset boot_pml4 - BASE
    mov cr3, eax
    mov eax, cr4
    or eax, 1 << 5              // PAE
    mov cr4, eax
    mov ecx, 0xc0000080         // EFER
    rdmsr
    or eax, (1 << 8) | (1 << 11) // LME, NXE
    wrmsr
    mov eax, cr0
    or eax, (1 << 31) | (1 << 16) | 1 // PG, WP, PE
    mov cr0, eax

    lgdt [boot_gdt_pointer]
    .byte 0xea                  // far jump: there is no stack here
    .long 2f
    .word 8

.code64
2:  xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov edi, ebx
    movabs rax, offset high_start
    jmp rax

// Descriptors are marked accessed: the processor would write the mark, and this page is read-only.
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // 64-bit code
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt
    .long 0

.section .text.high_start, "ax"
.type high_start, @function
high_start:
    movabs rsp, offset boot_stack_top
    xor ebp, ebp
    call kernel_main
    ud2
.size high_start, . - high_start
