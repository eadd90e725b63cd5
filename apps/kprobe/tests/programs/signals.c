/* signals SCENARIO: programs that block, ignore, own or mask SIGTRAP around a probed function. */
#define _GNU_SOURCE
#include "program.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <ucontext.h>
#include <unistd.h>

COUNTER(work);
static volatile sig_atomic_t traps, usr1s;

PROBED int work(int a)
{
    COUNT(work);
    return a * 3 + 1;
}

static int work_many(int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += work(i);
    return sum;
}

static void on_usr1(int signal)
{
    (void)signal;
    usr1s++;
    work_many(10);
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    traps += signal == SIGTRAP;
    work_many(10);
}

static void handle(int signal, void (*simple)(int), void (*full)(int, siginfo_t *, void *), int mask_all)
{
    struct sigaction action = {0};
    if (full) {
        action.sa_sigaction = full;
        action.sa_flags = SA_SIGINFO;
    } else
        action.sa_handler = simple;
    if (mask_all)
        sigfillset(&action.sa_mask);
    sigaction(signal, &action, 0);
}

static void block(int how, int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(how, &set, 0);
}

static int is_blocked(int signal)
{
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, 0, &set);
    return sigismember(&set, signal);
}

static void report(int sum)
{
    printf("sum=%d traps=%d usr1s=%d\n", sum, (int)traps, (int)usr1s);
    REPORT(work);
}

static void blocked(void)
{
    block(SIG_BLOCK, SIGTRAP);
    int sum = work_many(1000);
    printf("blocked=%d usr1=%d\n", is_blocked(SIGTRAP), is_blocked(SIGUSR1));
    block(SIG_UNBLOCK, SIGTRAP);
    printf("blocked=%d\n", is_blocked(SIGTRAP));
    report(sum + work_many(1000));
}

static void all_blocked(void)
{
    sigset_t all, seen;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    int sum = work_many(1000);
    pthread_sigmask(SIG_SETMASK, 0, &seen);
    printf("trap=%d term=%d kill=%d\n", sigismember(&seen, SIGTRAP), sigismember(&seen, SIGTERM), sigismember(&seen, SIGKILL));
    report(sum);
}

static void ignored(void)
{
    struct sigaction seen;
    signal(SIGTRAP, SIG_IGN);
    int sum = work_many(1000);
    raise(SIGTRAP);
    sigaction(SIGTRAP, 0, &seen);
    printf("still ignored=%d\n", seen.sa_handler == SIG_IGN);
    report(sum + work_many(1000));
}

static void own_handler(void)
{
    struct sigaction seen;
    handle(SIGTRAP, 0, on_trap, 1);
    int sum = work_many(100);
    for (int i = 0; i < 5; i++)
        raise(SIGTRAP);
    sigaction(SIGTRAP, 0, &seen);
    printf("still mine=%d siginfo=%d mask=%d\n", seen.sa_sigaction == on_trap, !!(seen.sa_flags & SA_SIGINFO), sigismember(&seen.sa_mask, SIGTERM));
    report(sum + work_many(100));
}

static void handler_with_full_mask(void)
{
    handle(SIGUSR1, on_usr1, 0, 1);
    for (int i = 0; i < 20; i++)
        raise(SIGUSR1);
    report(0);
}

static void *born(void *sum)
{
    *(int *)sum = work_many(500);
    return 0;
}

static void thread_born_blocked(void)
{
    sigset_t all, old;
    pthread_t thread;
    int sum = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_create(&thread, 0, born, &sum);
    pthread_sigmask(SIG_SETMASK, &old, 0);
    pthread_join(thread, 0);
    report(sum);
}

/* Everything but SIGUSR1 blocked while the call waits; the handler hits the probe under that mask. */
static sigset_t waiting_mask(void)
{
    sigset_t mask;
    handle(SIGUSR1, on_usr1, 0, 1);
    block(SIG_BLOCK, SIGUSR1);
    raise(SIGUSR1);
    sigfillset(&mask);
    sigdelset(&mask, SIGUSR1);
    return mask;
}

static const struct timespec long_time = {5, 0};

static void in_sigsuspend(void)
{
    sigset_t mask = waiting_mask();
    report(sigsuspend(&mask));
}

/* A mask that nobody can write. */
static void in_constant_masks(void)
{
    sigset_t *mask = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *mask = waiting_mask();
    mprotect(mask, 4096, PROT_READ);
    int first = sigsuspend(mask);
    waiting_mask();
    int second = ppoll(0, 0, &long_time, mask);
    waiting_mask();
    report(first + second + pselect(0, 0, 0, 0, &long_time, mask));
}

static void in_ppoll(void)
{
    sigset_t mask = waiting_mask();
    report(ppoll(0, 0, &long_time, &mask));
}

static void in_pselect(void)
{
    sigset_t mask = waiting_mask();
    report(pselect(0, 0, 0, 0, &long_time, &mask));
}

static void in_epoll_pwait(void)
{
    sigset_t mask = waiting_mask();
    struct epoll_event event;
    report(epoll_pwait(epoll_create1(0), &event, 1, 5000, &mask));
}

static void own_breakpoint(void)
{
    handle(SIGTRAP, 0, on_trap, 0);
    for (int i = 0; i < 5; i++)
        __asm__ volatile("int3" ::: "memory");
    report(work_many(100));
}

static void own_trap_flag(void)
{
    handle(SIGTRAP, 0, on_trap, 0);
    __asm__ volatile("pushf; orl $0x100, (%%rsp); popf; nop; pushf; andl $~0x100, (%%rsp); popf" ::: "memory", "cc");
    printf("stepped=%d\n", traps > 0);
    traps = 0;
    report(work_many(100));
}

static void default_action(void)
{
    report(work_many(100));
    fflush(stdout);
    raise(SIGTRAP);
    puts("survived");
}

static const struct scenario scenarios[] = {
    {"blocked", blocked},
    {"all_blocked", all_blocked},
    {"ignored", ignored},
    {"own_handler", own_handler},
    {"handler_with_full_mask", handler_with_full_mask},
    {"thread_born_blocked", thread_born_blocked},
    {"in_sigsuspend", in_sigsuspend},
    {"in_constant_masks", in_constant_masks},
    {"in_ppoll", in_ppoll},
    {"in_pselect", in_pselect},
    {"in_epoll_pwait", in_epoll_pwait},
    {"own_breakpoint", own_breakpoint},
    {"own_trap_flag", own_trap_flag},
    {"default_action", default_action},
};
MAIN(scenarios)
