/* faults SCENARIO: instructions that fault, and what the program's handlers see of them. */
#define _GNU_SOURCE
#include "program.h"
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <xmmintrin.h>
#ifdef __GLIBC__
#include <execinfo.h>
#endif

/* Functions whose instruction at the probed offset is the one that may fault. */
#define FUNCTION(name, code)                                                                       \
    long name(volatile void *at, long value);                                                      \
    __asm__(".text\n.p2align 4\n.globl " #name "\n.type " #name ", @function\n" #name ":\n"        \
            ".cfi_startproc\n" code "\nret\n.cfi_endproc\n.size " #name ", .-" #name "\n")

FUNCTION(load, "mov (%rdi), %rax");
FUNCTION(store, "mov %rsi, (%rdi)");
FUNCTION(exchange, "lock xadd %rsi, 8(%rdi)");
FUNCTION(aligned, "movaps (%rdi), %xmm0");
FUNCTION(copy, "rep movsb");
FUNCTION(relative, "mov hidden_page(%rip), %rax");
FUNCTION(divide, "idivq (%rdi)");
FUNCTION(divide_vector, "divsd (%rdi), %xmm0");
FUNCTION(undefined, "xend");
FUNCTION(pushing, "mov %rsp, %rcx\nmov %rdi, %rsp\npushq 8(%rcx)\nmov %rcx, %rsp");
FUNCTION(calling, "mov %rsp, %rcx\nmov %rdi, %rsp\ncall 1f\n1: mov %rcx, %rsp");
FUNCTION(calling_far, "push %rbx\ncall *(%rdi)\npop %rbx");
FUNCTION(returning, "mov %rsp, %rcx\nmov %rdi, %rsp\nret");

COUNTER(load);
COUNTER(store);

static char *page, *file_page;
extern char hidden_page[4096];
__asm__(".bss\n.p2align 12\nhidden_page: .skip 4096\n.text");
static sigjmp_buf out;
static volatile sig_atomic_t handled, depth;
static volatile long stack_at_call;

static long counted_load(volatile void *at)
{
    COUNT(load);
    return load(at, 0);
}

static long counted_store(volatile void *at, long value)
{
    COUNT(store);
    return store(at, value);
}

static void report(void)
{
    printf("handled=%d\n", (int)handled);
    REPORT(load);
    REPORT(store);
}

static const struct {
    const char *name;
    long (*function)(volatile void *, long);
} functions[] = {
#define NAMED(name) {#name, name}
    NAMED(load), NAMED(store), NAMED(exchange), NAMED(aligned), NAMED(copy), NAMED(relative), NAMED(divide),
    NAMED(divide_vector), NAMED(undefined), NAMED(pushing), NAMED(calling), NAMED(calling_far), NAMED(returning),
};

static void print_within(const char *what, const char *of, const char *at, const char *start)
{
    printf(" %s=%s%+ld", what, of, (long)(at - start));
}

/* An address as something that is the same in every run. */
static void print_address(const char *what, const void *address)
{
    const char *at = address;
    if (page && at >= page - 64 && at < page + 4096)
        return print_within(what, "page", at, page);
    if (file_page && at >= file_page && at < file_page + 4096)
        return print_within(what, "file", at, file_page);
    if (at >= hidden_page && at < hidden_page + 4096)
        return print_within(what, "hidden", at, hidden_page);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        const char *start = (const char *)functions[i].function;
        if (at >= start && at < start + 16)
            return print_within(what, functions[i].name, at, start);
    }
    if ((unsigned long)at < 4096 || (unsigned long)at >> 47)
        printf(" %s=%lx", what, (unsigned long)at);
    else
        printf(" %s=elsewhere", what);
}

static void print_fault(int signal, const siginfo_t *info, const ucontext_t *context)
{
    const greg_t *regs = context->uc_mcontext.gregs;
    printf("signal %d code %d trap %lld", signal, info->si_code, (long long)regs[REG_TRAPNO]);
    print_address("address", info->si_addr);
    print_address("pc", (void *)regs[REG_RIP]);
    print_address("di", (void *)regs[REG_RDI]);
    long below = stack_at_call - regs[REG_RSP];
    if (below >= 0 && below < 256)
        printf(" below=%ld", below);
    else
        print_address("sp", (void *)regs[REG_RSP]);
    puts("");
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    handled++;
    print_fault(signal, info, context);
    siglongjmp(out, 1);
}

static struct sigaction handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO}, before;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, &before);
    return before;
}

static void use_signal_stack(void)
{
    size_t size = 1 << 16;
    stack_t stack = {.ss_sp = malloc(size), .ss_size = size};
    sigaltstack(&stack, 0);
}

static void prepare(void (*handler)(int, siginfo_t *, void *), int flags)
{
    page = mmap(0, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page += 4096;
    use_signal_stack();
    handle(SIGSEGV, handler, flags);
    handle(SIGBUS, handler, flags);
    handle(SIGFPE, handler, flags);
    handle(SIGILL, handler, flags);
}

static void map_file(void)
{
    char name[] = "/tmp/faults-XXXXXX";
    int file = mkstemp(name);
    unlink(name);
    file_page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
}

#define TRY(call)                                                                                  \
    do {                                                                                           \
        if (!sigsetjmp(out, 1)) {                                                                  \
            __asm__ volatile("mov %%rsp, %0" : "=m"(stack_at_call));                               \
            printf("%s: ", #call);                                                                 \
            fflush(stdout);                                                                        \
            call;                                                                                  \
            puts("no fault");                                                                      \
        }                                                                                          \
    } while (0)

/* Every kind of instruction, with memory that is there and with memory that is not. */
static void kinds(void)
{
    long one[4] __attribute__((aligned(16))) = {1, 1, 1, 1};
    void *nowhere = 0, *wild = (void *)0x1234567800000000;
    char room[256];
    prepare(on_fault, SA_ONSTACK);
    map_file();
    mprotect(hidden_page, 4096, PROT_NONE);
    TRY(counted_load(one));
    TRY(counted_load(nowhere));
    TRY(counted_load(page));
    TRY(counted_load(page - 4));
    TRY(counted_load(wild));
    TRY(counted_load(file_page));
    TRY(counted_store(one, 1));
    TRY(counted_store(page + 8, 1));
    TRY(counted_store((void *)report, 1));
    TRY(exchange(one, 0));
    TRY(exchange(page, 0));
    TRY(aligned(one, 0));
    TRY(aligned((char *)one + 8, 0));
    TRY(relative(0, 0));
    TRY(divide(one, 0));
    TRY(divide(&(long){0}, 0));
    TRY(undefined(0, 0));
    TRY(pushing(room + 128, 0));
    TRY(pushing(page, 0));
    TRY(calling(room + 128, 0));
    TRY(calling(page, 0));
    TRY(calling_far(&(void *){(void *)getpid}, 0));
    TRY(calling_far(page, 0));
    TRY(calling_far(&nowhere, 0));
    TRY(returning(page, 0));
    report();
    printf("calls exchange=2\ncalls aligned=2\ncalls relative=1\ncalls divide=2\ncalls undefined=1\n");
    printf("calls pushing+6=2\ncalls calling+6=2\ncalls calling_far+1=3\ncalls returning+6=1\n");
}

/* A repeated instruction that faults in its middle. */
static void in_the_middle(void)
{
    static char from[64] = "what comes before the page";
    prepare(on_fault, SA_ONSTACK);
    mprotect(page - 4096, 4096, PROT_READ | PROT_WRITE);
    if (!sigsetjmp(out, 1))
        __asm__ volatile("call copy" ::"D"(page - 10), "S"(from), "c"(26L) : "memory", "rax");
    printf("%.10s\n", page - 10);
    printf("calls copy=1\n");
}

static void floating(void)
{
    double zero = 0, two = 2;
    prepare(on_fault, SA_ONSTACK);
    TRY(divide_vector(&two, 0));
    _mm_setcsr(_mm_getcsr() & ~_MM_MASK_DIV_ZERO);
    if (!sigsetjmp(out, 1))
        __asm__ volatile("movsd %0, %%xmm0\ncall divide_vector" ::"m"(two), "D"(&zero) : "xmm0");
    printf("calls divide_vector=2\n");
}

static void on_fault_skip(int signal, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;
    handled++;
    print_fault(signal, info, frame);
    frame->uc_mcontext.gregs[REG_RIP] += 3;
    frame->uc_mcontext.gregs[REG_RAX] = 77;
}

static void skipped(void)
{
    prepare(on_fault_skip, 0);
    __asm__ volatile("mov %%rsp, %0" : "=m"(stack_at_call));
    for (int i = 0; i < 3; i++)
        printf("loaded %ld\n", counted_load(page));
    report();
}

/* The program's handler returns to the instruction, whose probe is hit again. */
static void on_fault_repair(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    handled++;
    COUNT(store);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static void repaired(void)
{
    prepare(on_fault_repair, SA_ONSTACK);
    for (int i = 0; i < 20; i++) {
        counted_store(page, i);
        printf("%ld ", *(long *)page);
        if (i % 2)
            mprotect(page, 4096, PROT_READ);
    }
    report();
}

static void on_fault_place(int signal, siginfo_t *info, void *context)
{
    sigset_t mask;
    stack_t stack;
    (void)info, (void)context;
    pthread_sigmask(SIG_BLOCK, 0, &mask);
    sigaltstack(0, &stack);
    printf("signal %d on stack %d, blocks", signal, !!(stack.ss_flags & SS_ONSTACK));
    for (int s = 1; s < 32; s++)
        if (sigismember(&mask, s))
            printf(" %d", s);
    puts("");
    siglongjmp(out, 1);
}

/* The handler runs where and with the mask that the program has asked for. */
static void places(void)
{
    static const int flags[] = {0, SA_ONSTACK, SA_NODEFER, SA_ONSTACK | SA_NODEFER | SA_RESTART};
    prepare(on_fault_place, 0);
    for (int i = 0; i < 4; i++) {
        struct sigaction action = {.sa_sigaction = on_fault_place, .sa_flags = flags[i] | SA_SIGINFO}, seen;
        sigaddset(&action.sa_mask, SIGUSR1 + i);
        sigaddset(&action.sa_mask, SIGKILL);
        sigaction(SIGSEGV, &action, 0);
        sigaction(SIGSEGV, 0, &seen);
        printf("mine=%d flags=%x usr1=%d kill=%d\n", seen.sa_sigaction == on_fault_place, seen.sa_flags & ~0x04000000,
               sigismember(&seen.sa_mask, SIGUSR1), sigismember(&seen.sa_mask, SIGKILL));
        if (!sigsetjmp(out, 1))
            counted_load(page);
    }
    report();
}

static void on_simple(int signal)
{
    printf("simple %d\n", signal);
    handled++;
    siglongjmp(out, 1);
}

/* signal(2), and what sigaction tells of it. */
static void simple(void)
{
    struct sigaction seen;
    prepare(on_fault, 0);
    printf("before: mine=%d\n", signal(SIGSEGV, on_simple) == (void *)on_fault);
    sigaction(SIGSEGV, 0, &seen);
    printf("mine=%d siginfo=%d restart=%d\n", seen.sa_handler == on_simple, !!(seen.sa_flags & SA_SIGINFO),
           !!(seen.sa_flags & SA_RESTART));
    for (int i = 0; i < 3; i++)
        if (!sigsetjmp(out, 1))
            counted_load(page);
    printf("before: mine=%d\n", signal(SIGSEGV, SIG_DFL) == on_simple);
    printf("default: %d\n", signal(SIGSEGV, SIG_IGN) == SIG_DFL);
    printf("ignored: %d\n", signal(SIGSEGV, on_simple) == SIG_IGN);
    report();
}

static void report_and(volatile void *at)
{
    report();
    fflush(stdout);
    counted_load(at);
    puts("survived");
}

/* The counts that a scenario prints before it ends by its last call. */
#define LAST_CALLS 1

static void by_default(void)
{
    atomic_store(&load_calls, LAST_CALLS);
    report_and(0);
}

static void by_default_again(void)
{
    prepare(on_fault, 0);
    signal(SIGSEGV, SIG_DFL);
    by_default();
}

static void bus_by_default(void)
{
    map_file();
    atomic_store(&load_calls, LAST_CALLS);
    report_and(file_page);
}

static void division_by_default(void)
{
    printf("calls divide=1\n");
    fflush(stdout);
    divide(&(long){0}, 0);
}

static void wait_for(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    printf("child: exit %d signal %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    fflush(stdout);
}

static void inherited(void)
{
    struct sigaction seen;
    sigaction(SIGSEGV, 0, &seen);
    printf("ignored from the start=%d\n", seen.sa_handler == SIG_IGN);
}

static void ignored(void)
{
    struct sigaction seen;
    signal(SIGSEGV, SIG_IGN);
    raise(SIGSEGV);
    sigaction(SIGSEGV, 0, &seen);
    printf("still ignored=%d\n", seen.sa_handler == SIG_IGN);
    fflush(stdout);
    pid_t child = fork();
    if (!child)
        execl("/proc/self/exe", "faults", "inherited", (char *)0);
    wait_for(child);
    atomic_store(&load_calls, LAST_CALLS);
    report_and(0);
}

static void once(void)
{
    struct sigaction seen;
    prepare(on_fault, SA_RESETHAND | SA_ONSTACK);
    if (!sigsetjmp(out, 1))
        counted_load(page);
    sigaction(SIGSEGV, 0, &seen);
    printf("default now=%d\n", seen.sa_handler == SIG_DFL);
    atomic_fetch_add(&load_calls, 1);
    report();
    fflush(stdout);
    load(page, 0);
    puts("survived");
}

static void on_sent(int signal, siginfo_t *info, void *context)
{
    (void)context;
    handled++;
    printf("signal %d code %d value %d me %d\n", signal, info->si_code, info->si_value.sival_int,
           info->si_pid == getpid());
}

/* Signals that somebody sends are none of ours. */
static void sent(void)
{
    prepare(on_sent, SA_RESTART);
    kill(getpid(), SIGSEGV);
    raise(SIGSEGV);
    raise(SIGFPE);
    for (int i = 1; i < 4; i++)
        sigqueue(getpid(), SIGBUS, (union sigval){.sival_int = i});
    counted_load(&page);
    report();
}

static void on_tick(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    handled++;
}

/* A signal that comes at any time, also while a probe is being handled: that one waits, and comes. */
static void sent_often(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGSEGV};
    struct itimerspec often = {{0, 200000}, {0, 200000}}, never = {0};
    sigset_t mask;
    timer_t timer;
    long sum = 0;
    prepare(on_tick, SA_RESTART | SA_ONSTACK);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &often, 0);
    for (long i = 0; i < 100000; i++)
        sum += counted_load(&(long){i});
    while (!handled)
        sched_yield();
    timer_settime(timer, 0, &never, 0);
    int before = handled;
    raise(SIGSEGV);
    printf("came=%d one more=%d\n", before > 0, handled - before);
    pthread_sigmask(SIG_BLOCK, 0, &mask);
    printf("sum=%ld blocked=%d\n", sum, sigismember(&mask, SIGSEGV));
    REPORT(load);
}

static void on_nested(int signal, siginfo_t *info, void *context)
{
    print_fault(signal, info, context);
    handled++;
    if (++depth < 4)
        counted_store(page + depth, 1);
    siglongjmp(out, 1);
}

static void nested(void)
{
    prepare(on_nested, SA_NODEFER | SA_ONSTACK);
    if (!sigsetjmp(out, 1))
        counted_load(page);
    report();
}

/* A fault whose signal is masked ends the process, handler or not. */
static void masked(void)
{
    sigset_t set;
    prepare(on_fault, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    pthread_sigmask(SIG_BLOCK, &set, 0);
    atomic_store(&load_calls, LAST_CALLS);
    report_and(page);
}

static PROBED long recurse(long n)
{
    volatile char room[512];
    room[n % 512] = 1;
    return recurse(n + 1) + room[0];
}

static void on_overflow(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    printf("overflow %d\n", signal);
    siglongjmp(out, 1);
}

static void *overflowing(void *unused)
{
    (void)unused;
    use_signal_stack();
    if (!sigsetjmp(out, 1))
        recurse(0);
    return 0;
}

/* A stack that overflows, where the signal stack is all there is. */
static void overflow(void)
{
    pthread_t thread;
    prepare(on_overflow, SA_ONSTACK);
    pthread_create(&thread, 0, overflowing, 0);
    pthread_join(thread, 0);
    report();
}

static __thread sigjmp_buf own_out;

static void on_own(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    atomic_fetch_add((atomic_int *)&handled, 1);
    siglongjmp(own_out, 1);
}

static void *faulting(void *unused)
{
    (void)unused;
    for (volatile int i = 0; i < 500; i++)
        if (!sigsetjmp(own_out, 1))
            counted_load(i % 2 ? page : (char *)&page);
    return 0;
}

static void threads(void)
{
    pthread_t all[4];
    prepare(on_own, 0);
    for (int i = 0; i < 4; i++)
        pthread_create(&all[i], 0, faulting, 0);
    for (int i = 0; i < 4; i++)
        pthread_join(all[i], 0);
    report();
}

/* Children have handlers of their own; what they change is not their parent's, also where memory is shared. */
static void children(void)
{
    extern char **environ;
    posix_spawnattr_t attributes;
    sigset_t all;
    pid_t child;
    char *probe[] = {"sh", "-c", "kill -SEGV $$", 0};
    prepare(on_fault, SA_ONSTACK);
    fflush(stdout);
    if (!(child = fork())) {
        if (!sigsetjmp(out, 1))
            load(page, 0);
        fflush(stdout);
        _exit(7);
    }
    wait_for(child);
    if (!(child = fork())) {
        signal(SIGSEGV, SIG_DFL);
        load(page, 0);
        _exit(8);
    }
    wait_for(child);
    if (!(child = vfork())) {
        struct sigaction none = {0};
        sigaction(SIGSEGV, &none, 0);
        sigaction(SIGSEGV, 0, &none);
        _exit(none.sa_handler == SIG_DFL ? 5 : 6);
    }
    wait_for(child);
    if (!(child = vfork())) {
        struct sigaction none = {0};
        sigaction(SIGSEGV, &none, 0);
        counted_load(page);
        _exit(9);
    }
    wait_for(child);
    posix_spawnattr_init(&attributes);
    sigfillset(&all);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    posix_spawn(&child, "/bin/sh", 0, &attributes, probe, environ);
    wait_for(child);
    if (!sigsetjmp(out, 1))
        counted_load(page);
    report();
}

#ifdef __GLIBC__
static void on_fault_walk(int signal, siginfo_t *info, void *context)
{
    extern char __executable_start __attribute__((weak)), etext __attribute__((weak));
    void *frames[32];
    int count = backtrace(frames, 32);
    print_fault(signal, info, context);
    for (int i = 0; i < count; i++)
        if ((char *)frames[i] >= &__executable_start && (char *)frames[i] < &etext)
            printf("frame %d: %ld\n", i, (long)((char *)frames[i] - &__executable_start));
    printf("frames %d\n", count);
    siglongjmp(out, 1);
}

/* An unwinder that starts in the handler finds the kernel's frame, and the function that has faulted. */
static void walked(void)
{
    prepare(on_fault_walk, SA_ONSTACK);
    for (volatile int i = 0; i < 2; i++)
        if (!sigsetjmp(out, 1)) {
            handle(SIGSEGV, on_fault_walk, i ? 0 : SA_ONSTACK);
            counted_load(page);
        }
    report();
}
#endif

/* Handlers that were there before anybody attached, and are there after. */
static void waiting(void)
{
    struct sigaction seen;
    prepare(on_fault, SA_ONSTACK);
    ready_and_wait();
    TRY(counted_load(page));
    TRY(counted_load(page));
    sigaction(SIGSEGV, 0, &seen);
    printf("mine=%d flags=%x\n", seen.sa_sigaction == on_fault, seen.sa_flags & ~0x04000000);
    signal(SIGFPE, SIG_DFL);
    report();
    ready_and_wait();
    sigaction(SIGSEGV, 0, &seen);
    printf("mine=%d flags=%x\n", seen.sa_sigaction == on_fault, seen.sa_flags & ~0x04000000);
    TRY(counted_load(page));
    printf("default=%d\n", signal(SIGFPE, SIG_IGN) == SIG_DFL);
}

/* Somebody else sends a signal. */
static void told(void)
{
    prepare(on_sent, SA_RESTART);
    ready_and_wait();
    report();
}

static const struct scenario scenarios[] = {
    {"kinds", kinds},
    {"in_the_middle", in_the_middle},
    {"floating", floating},
    {"skipped", skipped},
    {"repaired", repaired},
    {"places", places},
    {"simple", simple},
    {"by_default", by_default},
    {"by_default_again", by_default_again},
    {"bus_by_default", bus_by_default},
    {"division_by_default", division_by_default},
    {"ignored", ignored},
    {"inherited", inherited},
    {"once", once},
    {"sent", sent},
    {"sent_often", sent_often},
    {"nested", nested},
    {"masked", masked},
    {"overflow", overflow},
    {"threads", threads},
    {"children", children},
#ifdef __GLIBC__
    {"walked", walked},
#endif
    {"told", told},
    {"waiting", waiting},
};
MAIN(scenarios)
