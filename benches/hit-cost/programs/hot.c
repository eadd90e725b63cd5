/* hot: times short bursts of calls to one function, and prints each burst's cost in nanoseconds per call.
 *
 *     hot FUNCTION BURSTS CALLS CPU        CPU -1: stay on the processors that it was given
 *
 * Every function has the same shape, `long f(long, const char *)`, and differs in its first instruction, where probes
 * go. Inside a burst there is no call but those: the clock is the time stamp counter, read in line, so that probes on
 * libc's functions cost a burst nothing. Each burst follows a pause, in which a reader of events can catch up, and
 * WARM calls that are not timed, in which the caches recover from the pause; whoever compiles this says how many. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_NS = 400000 };

typedef long function(long, const char *);

#define FUNCTION(name, body) \
    function name;           \
    __asm__(".text\n.p2align 6\n.globl " #name "\n.type " #name ", @function\n" #name ":\n" body \
            "\n.size " #name ", .-" #name "\n")

FUNCTION(t_push, "push %rbp; mov %rsp, %rbp; lea 1(%rdi), %rax; pop %rbp; ret");
FUNCTION(t_mov, "mov %rdi, %rax; inc %rax; ret");
FUNCTION(t_lea, "lea t_lea(%rip), %rax; add %rdi, %rax; ret");
FUNCTION(t_nop5, ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00; lea 1(%rdi), %rax; ret");
FUNCTION(t_jmp, "jmp 1f; int3; 1: lea 1(%rdi), %rax; ret");
FUNCTION(t_call, "call 1f; inc %rax; ret; 1: mov %rdi, %rax; ret");
/* A system call that does nothing: the floor of an entry into the kernel. */
FUNCTION(t_getppid, "mov $110, %eax; syscall; ret");
/* A breakpoint whose handler does nothing: the floor of a probe that is a breakpoint. */
FUNCTION(t_trap, "int3; ret");

/* The kernel leaves the instruction pointer behind the int3: a handler that returns has stepped over it. */
void handler(int), restorer(void);
__asm__(".text\nhandler: ret\nrestorer: mov $15, %eax; syscall\n");

struct entry {
    const char *name;
    function *call;
};
static const struct entry functions[] = {
    {"t_push", t_push}, {"t_mov", t_mov},   {"t_lea", t_lea},         {"t_nop5", t_nop5},
    {"t_jmp", t_jmp},   {"t_call", t_call}, {"t_getppid", t_getppid}, {"t_trap", t_trap},
};

/* As a breakpoint host installs it: SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER, all signals but SIGTRAP masked. */
static void handle_traps(void)
{
    unsigned long action[4] = {(unsigned long)handler, 0x4 | 0x04000000 | 0x08000000 | 0x40000000,
                               (unsigned long)restorer, ~(1ul << (5 - 1))};
    if (syscall(SYS_rt_sigaction, 5, action, 0, 8) != 0) {
        perror("rt_sigaction");
        exit(1);
    }
}

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        perror("sched_setaffinity");
        exit(1);
    }
}

static inline void pause_for_readers(void)
{
    struct timespec pause = {0, PAUSE_NS};
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_nanosleep), "D"(&pause), "S"(0) : "rcx", "r11", "memory");
}

static inline unsigned long counter(void)
{
    unsigned low, high;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
    return (unsigned long)high << 32 | low;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * time.tv_sec + time.tv_nsec;
}

static unsigned long burst(function *call, long calls, const char *text)
{
    unsigned long begin = counter();
    for (long i = 0; i < calls; i++)
        call(i, text);
    return counter() - begin;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: hot FUNCTION BURSTS CALLS CPU\n");
        return 2;
    }
    function *call = NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, argv[1]) == 0)
            call = functions[i].call;
    long bursts = atol(argv[2]), calls = atol(argv[3]), cpu = atol(argv[4]);
    unsigned long *counts = calloc(bursts > 0 ? bursts : 1, sizeof *counts);
    if (call == NULL || bursts < 1 || calls < 1 || counts == NULL) {
        fprintf(stderr, "hot: no such function, or no bursts or calls\n");
        return 2;
    }
    if (cpu >= 0)
        stay_on(cpu);
    if (call == t_trap)
        handle_traps();
    double start = now();
    unsigned long first = counter();
    for (long i = 0; i < bursts; i++) {
        pause_for_readers();
        burst(call, WARM, "a string");
        counts[i] = burst(call, calls, "a string");
    }
    double ns_per_count = (now() - start) / (counter() - first);
    for (long i = 0; i < bursts; i++)
        printf("%.3f\n", counts[i] * ns_per_count / calls);
    return 0;
}
