/* storm SCENARIO: what makes a thread be elsewhere than it thinks, at a high rate, around functions that are probed.
 * Between `ready` and `stop` it does so again and again, and checks every result. */
#include "torture.h"
#include <dlfcn.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;
static atomic_int running = 1;
static atomic_long calls, rounds;
/* For the control: a result that is wrong once. */
static int broken;

/* A window with boundaries inside: push; mov; lea; pop; ret. */
__asm__(".text\n.balign 64\n.globl work\n.type work, @function\n"
        "work: .cfi_startproc\n push %rbx\n mov %rdi, %rbx\n lea 7(%rbx), %rax\n pop %rbx\n ret\n .cfi_endproc\n"
        ".size work, . - work\n");
long work(long);

PROBED long deep(long n, void (*at_the_bottom)(void))
{
    if (n == 0) {
        if (at_the_bottom)
            at_the_bottom();
        return 0;
    }
    return deep(n - 1, at_the_bottom) + 1;
}

PROBED long heap(long n)
{
    long *p = malloc((size_t)(n % 100 + 1) * sizeof *p), sum = 0;
    for (long i = 0; i <= n % 100; i++)
        p[i] = i;
    for (long i = 0; i <= n % 100; i++)
        sum += p[i];
    free(p);
    return sum;
}

static void work_some(int n)
{
    for (long x = 0; x < n; x++)
        must(work(x * 77) == x * 77 + 7 + broken, "work");
    broken = 0;
    must(deep(5, 0) == 5, "deep");
    atomic_fetch_add(&calls, n);
}

/* Signals */

static __thread volatile long handled;

PROBED void on_signal(int signal)
{
    int saved = errno;
    (void)signal;
    handled++;
    for (long x = 0; x < 5; x++)
        must(work(x) == x + 7, "work in a handler");
    must(deep(3, 0) == 3, "deep in a handler");
    errno = saved;
}

static void handle(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | flags};
    sigaction(signal, &action, 0);
}

static void own_stack(void)
{
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&stack, 0);
}

static pthread_t shot[2];

static void *target(void *with_stack)
{
    if (with_stack)
        own_stack();
    while (running) {
        work_some(50);
        must(heap(calls) >= 0, "heap");
        rounds++;
    }
    return 0;
}

/* Threads that do nothing special. */
static void calm(void)
{
    pthread_create(&shot[0], 0, target, 0);
    target(0);
    pthread_join(shot[0], 0);
}

static void signals(void)
{
    handle(SIGUSR1, on_signal, 0);
    handle(SIGUSR2, on_signal, SA_ONSTACK);
    handle(SIGALRM, on_signal, SA_ONSTACK | SA_NODEFER);
    pthread_create(&shot[0], 0, target, 0);
    pthread_create(&shot[1], 0, target, shot);
    struct itimerval often = {{0, 300}, {0, 300}};
    setitimer(ITIMER_REAL, &often, 0);
    while (running) {
        for (int i = 0; i < 2; i++) {
            pthread_kill(shot[i], SIGUSR1);
            pthread_kill(shot[i], SIGUSR2);
        }
        usleep(50);
    }
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, 0);
    for (int i = 0; i < 2; i++)
        pthread_join(shot[i], 0);
}

/* Jumps out of handlers, and over probed frames */

static __thread sigjmp_buf back;
static __thread jmp_buf up;

PROBED void on_jump(int signal)
{
    (void)signal;
    must(work(3) == 10, "work before a jump");
    siglongjmp(back, 1);
}

static void jump_up(void)
{
    longjmp(up, 1);
}

static void *jump(void *with_stack)
{
    if (with_stack)
        own_stack();
    while (running) {
        volatile int kept = 17;
        if (!sigsetjmp(back, 1))
            raise(with_stack ? SIGUSR2 : SIGUSR1);
        if (!setjmp(up))
            deep(6, jump_up);
        must(kept == 17, "a local behind a jump");
        work_some(20);
        rounds++;
    }
    return 0;
}

/* A load that faults, in the midst of a function that is probed. */
__asm__(".globl fault_here\n.type fault_here, @function\n"
        "fault_here: .cfi_startproc\n xor %eax, %eax\n mov (%rdi), %rax\n add $7, %rax\n ret\n .cfi_endproc\n"
        ".size fault_here, . - fault_here\n");
long fault_here(long *);

static void *faulting(void *unused)
{
    (void)unused;
    while (running) {
        volatile int came_back = 0;
        long seven = 0;
        if (!sigsetjmp(back, 1))
            fault_here((long *)8);
        else
            came_back = 1;
        must(came_back, "a fault that was not delivered");
        must(fault_here(&seven) == 7, "fault_here");
        work_some(20);
        rounds++;
    }
    return 0;
}

static void jumps(void)
{
    pthread_t other, third;
    handle(SIGUSR1, on_jump, 0);
    handle(SIGUSR2, on_jump, SA_ONSTACK);
    handle(SIGSEGV, on_jump, SA_NODEFER);
    pthread_create(&other, 0, jump, &other);
    pthread_create(&third, 0, faulting, 0);
    jump(0);
    pthread_join(other, 0);
    pthread_join(third, 0);
}

/* Nothing but faults, and jumps out of their handler. */
static void faults_only(void)
{
    handle(SIGSEGV, on_jump, 0);
    faulting(0);
}

/* Children */

static void ends_well(pid_t child, const char *what)
{
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (status != 0) {
        char text[100];
        snprintf(text, sizeof text, "%s ended with %#x", what, (unsigned)status);
        must(0, text);
    }
}

static void forks(void)
{
    pthread_t other;
    pthread_create(&other, 0, target, 0);
    while (running) {
        pid_t child = fork();
        if (!child) {
            long before = faults;
            work_some(50);
            must(heap(50) == 1275, "heap in a child");
            _exit(faults != before);
        }
        ends_well(child, "a forked child");
        child = vfork();
        if (!child) {
            work(1);
            execlp("true", "true", (char *)0);
            _exit(1);
        }
        ends_well(child, "a vforked child");
        char *words[] = {"true", 0};
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, 1, 7);
        must(!posix_spawnp(&child, "true", &actions, 0, words, environ), "posix_spawn");
        ends_well(child, "a spawned child");
        posix_spawn_file_actions_destroy(&actions);
        work_some(20);
        rounds++;
    }
    pthread_join(other, 0);
}

/* Threads that come, go, and are cancelled */

static void *short_lived(void *n)
{
    work_some(20);
    if ((long)n % 2)
        pthread_exit((void *)work((long)n));
    return (void *)work((long)n);
}

static atomic_long cleaned;

PROBED void clean(void *unused)
{
    (void)unused;
    must(work(1) == 8, "work in a cleanup");
    cleaned++;
}

static void *cancelled(void *deeply)
{
    pthread_cleanup_push(clean, 0);
    for (;;) {
        work_some(5);
        if (deeply)
            deep(4, pthread_testcancel);
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return 0;
}

static void threads(void)
{
    while (running) {
        pthread_t some[4], doomed[2];
        long before = cleaned;
        for (long i = 0; i < 2; i++)
            pthread_create(&doomed[i], 0, cancelled, (void *)i);
        for (long i = 0; i < 4; i++)
            pthread_create(&some[i], 0, short_lived, (void *)i);
        for (long i = 0; i < 4; i++) {
            void *result = 0;
            pthread_join(some[i], &result);
            must((long)result == i + 7, "a thread's result");
        }
        for (long i = 0; i < 2; i++) {
            void *result = 0;
            pthread_cancel(doomed[i]);
            pthread_join(doomed[i], &result);
            must(result == PTHREAD_CANCELED, "a cancelled thread's result");
        }
        must(cleaned == before + 2, "cleanups of cancelled threads");
        rounds++;
    }
}

/* Objects that come and go */

static void objects(void)
{
    pthread_t other;
    pthread_create(&other, 0, target, 0);
    while (running) {
        void *object = dlopen("./storm-plugin.so", RTLD_NOW);
        must(object != 0, "dlopen");
        if (!object)
            break;
        long (*function)(long) = (long (*)(long))dlsym(object, "plugin_work");
        for (long x = 0; function && x < 20; x++)
            must(function(x) == x * 3 + 1, "plugin_work");
        dlclose(object);
        work_some(20);
        rounds++;
    }
    pthread_join(other, 0);
}

static const struct { const char *name; void (*run)(void); } scenarios[] = {
    {"calm", calm}, {"signals", signals}, {"jumps", jumps}, {"faults", faults_only}, {"forks", forks}, {"threads", threads}, {"objects", objects},
};

static void *run(void *scenario)
{
    ((void (*)(void))scenario)();
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    char line[64];
    size_t chosen = 0, count = sizeof scenarios / sizeof *scenarios;
    while (chosen < count && strcmp(argc > 1 ? argv[1] : "", scenarios[chosen].name))
        chosen++;
    if (chosen == count)
        return 2;
    broken = getenv("TORTURE_BREAK") != 0;
    say("ready");
    pthread_create(&thread, 0, run, (void *)scenarios[chosen].run);
    while (next_line(line, sizeof line)) {
        if (!strcmp(line, "progress"))
            printf("rounds=%ld\nprogressed\n", (long)rounds);
        if (!strcmp(line, "stop")) {
            running = 0;
            pthread_join(thread, 0);
            printf("calls=%ld\nrounds=%ld\nfaults=%ld\nstopped\n", (long)calls, (long)rounds, (long)faults);
        }
        fflush(stdout);
    }
    return faults != 0;
}
