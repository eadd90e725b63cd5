/* confined SCENARIO: programs that have little: little stack, few system calls, no permission to change their memory's
 * protection, nobody who may look at them. At the line `go` they call what is probed, and check it. */
#include "torture.h"
#include <linux/seccomp.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif
enum { LITTLE = 2048, MARGIN = 192 };

__asm__(".text\n.balign 64\n.globl work\n.type work, @function\n"
        "work: .cfi_startproc\n push %rbx\n mov %rdi, %rbx\n lea 7(%rbx), %rax\n pop %rbx\n ret\n .cfi_endproc\n"
        ".size work, . - work\n");
long work(long);

static long wrong;

static void work_some(int n)
{
    for (long x = 0; x < n; x++)
        wrong += work(x) != x + 7;
}

/* No library: in strict mode it may do nothing but write. */
static void tell(const char *line)
{
    if (write(1, line, strlen(line)) < 0)
        syscall(SYS_exit, 98);
}

static void wait_for_go(void)
{
    char c;
    while (read(0, &c, 1) == 1 && c != '\n')
        ;
}

static _Noreturn void end(void)
{
    tell(wrong ? "wrong\n" : "well\n");
    syscall(SYS_exit, wrong != 0);
    __builtin_unreachable();
}

static void strict_before(void)
{
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    tell("ready\n");
    wait_for_go();
    work_some(100);
}

static void strict_after(void)
{
    tell("ready\n");
    wait_for_go();
    work_some(100);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    work_some(100);
}

static void mdwe(void)
{
    if (prctl(PR_SET_MDWE, 1, 0, 0, 0)) {
        tell("no such thing\nready\n");
        return;
    }
    tell("ready\n");
    wait_for_go();
    work_some(1000);
}

static void undumpable(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    tell("ready\n");
    wait_for_go();
    work_some(1000);
}

/* Little stack: a context whose stack ends a little below. */

static ucontext_t home, low;
static char *lowest;

PROBED void in_low_stack(void)
{
    char here;
    /* All but a little is used up. */
    volatile char *used = __builtin_alloca((size_t)(&here - lowest) - LITTLE - MARGIN);
    used[0] = 1;
    work_some(100);
}

static void run_low(void)
{
    in_low_stack();
}

static void low_stack(size_t alternate)
{
    enum { SIZE = 65536 };
    char *area = mmap(0, SIZE + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lowest = area + 4096;
    mprotect(lowest, SIZE, PROT_READ | PROT_WRITE);
    if (alternate) {
        char *other = mmap(0, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 65536;
        size_t pages = (alternate + 4095) & ~4095ul;
        mprotect(other, pages, PROT_READ | PROT_WRITE);
        /* At the lower end of its pages: what is below faults. */
        stack_t stack = {.ss_sp = other, .ss_size = alternate};
        if (sigaltstack(&stack, 0))
            tell("no such stack\n");
    }
    getcontext(&low);
    low.uc_stack.ss_sp = lowest;
    low.uc_stack.ss_size = SIZE;
    low.uc_link = &home;
    makecontext(&low, run_low, 0);
    tell("ready\n");
    wait_for_go();
    swapcontext(&home, &low);
}

static void low_alone(void) { low_stack(0); }
static void low_alternate(void) { low_stack(65536); }
static void low_minimal(void) { low_stack(2048); }
static void low_smallest_real(void) { low_stack(getauxval(AT_MINSIGSTKSZ)); }
static void low_with_room(void) { low_stack(getauxval(AT_MINSIGSTKSZ) + 4096); }

/* On alternate stacks: a handler there calls what is probed. */

static void on_signal(int signal)
{
    (void)signal;
    work_some(10);
}

static void on_alternate(void)
{
    static char room[32768];
    stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigaltstack(&stack, 0);
    sigaction(SIGUSR1, &action, 0);
    tell("ready\n");
    wait_for_go();
    for (int i = 0; i < 100; i++)
        raise(SIGUSR1);
}

/* For the control. */
static void liar(void)
{
    tell("ready\n");
    wait_for_go();
    work_some(10);
    wrong++;
}

static const struct { const char *name; void (*run)(void); } scenarios[] = {
    {"strict-before", strict_before}, {"strict-after", strict_after}, {"mdwe", mdwe}, {"undumpable", undumpable},
    {"low-alone", low_alone}, {"low-alternate", low_alternate}, {"low-minimal", low_minimal},
    {"low-smallest-real", low_smallest_real}, {"low-with-room", low_with_room}, {"on-alternate", on_alternate},
    {"liar", liar},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        if (argc > 1 && !strcmp(argv[1], scenarios[i].name)) {
            scenarios[i].run();
            end();
        }
    return 2;
}
