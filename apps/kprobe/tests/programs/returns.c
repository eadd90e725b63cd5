/* returns SCENARIO: ways out of a function that are no return, in C. */
#define _GNU_SOURCE
#include "program.h"
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <execinfo.h>
#endif

COUNTER(outer);
COUNTER(inner);

/* Two probed functions that call what they are told to call. */
PROBED long inner(long (*next)(long), long value)
{
    COUNT(inner);
    return next(value) + 1;
}

PROBED long outer(long (*next)(long), long value)
{
    COUNT(outer);
    return inner(next, value) * 2;
}

static void report(long sum)
{
    printf("sum=%ld\n", sum);
    REPORT(outer);
    REPORT(inner);
}

static jmp_buf here;
static sigjmp_buf signal_here;
static long jump(long value) { longjmp(here, (int)value); }
static long signal_jump(long value) { siglongjmp(signal_here, (int)value); }

static void long_jumps(void)
{
    volatile long sum = 0;
    for (volatile int i = 1; i <= 1000; i++) {
        int got = setjmp(here);
        if (!got)
            outer(jump, i);
        sum += got;
    }
    report(sum);
}

static void signal_jumps(void)
{
    volatile long sum = 0;
    for (volatile int i = 1; i <= 1000; i++) {
        int got = sigsetjmp(signal_here, 1);
        if (!got)
            outer(signal_jump, i);
        sum += got;
    }
    report(sum);
}

static long jump_from_handler_value;
static void on_usr1(int signal)
{
    (void)signal;
    siglongjmp(signal_here, (int)jump_from_handler_value);
}
static long raise_usr1(long value)
{
    jump_from_handler_value = value;
    return raise(SIGUSR1);
}

static void jumps_from_a_handler(void)
{
    volatile long sum = 0;
    signal(SIGUSR1, on_usr1);
    for (volatile int i = 1; i <= 200; i++) {
        int got = sigsetjmp(signal_here, 1);
        if (!got)
            outer(raise_usr1, i);
        sum += got;
    }
    report(sum);
}

static sem_t arrived;
static void cleaned(void *name) { printf("cleanup %s\n", (char *)name); }

static long wait_for_cancel(long value)
{
    pthread_cleanup_push(cleaned, "inner");
    sem_post(&arrived);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return value;
}

static long leave_thread(long value)
{
    pthread_cleanup_push(cleaned, "inner");
    pthread_exit((void *)value);
    pthread_cleanup_pop(0);
    return 0;
}

static void *thread_main(void *next)
{
    pthread_cleanup_push(cleaned, "outer");
    outer((long (*)(long))next, 7);
    pthread_cleanup_pop(0);
    return 0;
}

static void end_threads(long (*how)(long), int cancel)
{
    long sum = 0;
    sem_init(&arrived, 0, 0);
    for (int i = 0; i < 8; i++) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, 0, thread_main, (void *)how);
        if (cancel) {
            sem_wait(&arrived);
            pthread_cancel(thread);
        }
        pthread_join(thread, &result);
        sum += result == PTHREAD_CANCELED ? 1000 : (long)result;
    }
    report(sum);
}

static void thread_cancel(void) { end_threads(wait_for_cancel, 1); }
static void thread_exit(void) { end_threads(leave_thread, 0); }

static long leave_process(long value)
{
    report(value);
    exit((int)value);
}
static void process_exit(void) { outer(leave_process, 9); }

COUNTER(dive);
PROBED long dive(long depth)
{
    COUNT(dive);
    if (!depth)
        return 0;
    long rest = dive(depth - 1);
    __asm__ volatile("" : "+r"(rest)); /* no loop instead of the recursion */
    return rest + depth;
}
static void recursion(void)
{
    long sum = 0;
    for (int i = 0; i < 20; i++)
        sum += dive(1000);
    printf("sum=%ld\n", sum);
    REPORT(dive);
}

COUNTER(tail);
PROBED long tail(long value)
{
    COUNT(tail);
    return value + 5;
}
COUNTER(head);
PROBED long head(long value)
{
    COUNT(head);
    return tail(value * 2);
}
static void calls_in_tail_position(void)
{
    long sum = 0;
    for (long i = 0; i < 1000; i++)
        sum += head(i);
    printf("sum=%ld\n", sum);
    REPORT(head);
    REPORT(tail);
}

#ifdef __GLIBC__
/* Prints the chain of callers by name, from the innermost to main. */
static long print_callers(long value)
{
    void *frames[32];
    int count = backtrace(frames, 32);
    char **names = backtrace_symbols(frames, count);
    for (int i = 0; i < count; i++) {
        char *name = strchr(names[i], '(');
        char *end = name ? strpbrk(name, "+)") : 0;
        if (end && end > name + 1)
            printf(" %.*s", (int)(end - name - 1), name + 1);
        if (name && !strncmp(name, "(main+", 6))
            break;
    }
    puts("");
    free(names);
    return value;
}
static void callers(void)
{
    long sum = 0;
    for (long i = 0; i < 10; i++)
        sum += outer(print_callers, i);
    report(sum);
}

/* Coroutines: each yields inside a probed call; they end in another order than they started. */
enum { COROUTINES = 8, STACK = 65536 };
static ucontext_t boss, coroutine[COROUTINES];
static int current, finished[COROUTINES];
static long total;
static long yield_to_boss(long value)
{
    int self = current;
    swapcontext(&coroutine[self], &boss);
    return value;
}
static void coroutine_main(int self)
{
    for (int i = 0; i < 20; i++)
        total += outer(yield_to_boss, self * 100 + i);
    finished[self] = 1;
    swapcontext(&coroutine[self], &boss);
}
static void make_coroutine(int i)
{
    getcontext(&coroutine[i]);
    coroutine[i].uc_stack.ss_sp = malloc(STACK);
    coroutine[i].uc_stack.ss_size = STACK;
    makecontext(&coroutine[i], (void (*)(void))coroutine_main, 1, i);
}
static int resume(int i)
{
    if (finished[i])
        return 0;
    current = i;
    swapcontext(&boss, &coroutine[i]);
    return 1;
}
static void coroutines(void)
{
    unsigned random = 1;
    for (int i = 0; i < COROUTINES; i++)
        make_coroutine(i);
    for (int left = COROUTINES; left;) {
        random = random * 1103515245 + 12345;
        int i = (int)(random >> 16) % COROUTINES;
        if (resume(i) && finished[i])
            left--;
    }
    report(total);
}

static void *resume_all(void *argument)
{
    for (int i = COROUTINES - 1; i >= 0; i--)
        resume(i);
    return argument;
}
static void coroutines_between_threads(void)
{
    for (int i = 0; i < COROUTINES; i++)
        make_coroutine(i);
    for (int i = 0; i <= 20; i++) {
        pthread_t thread;
        pthread_create(&thread, 0, resume_all, 0);
        pthread_join(thread, 0);
    }
    report(total);
}
#endif

static const struct scenario scenarios[] = {
    {"long_jumps", long_jumps},
    {"signal_jumps", signal_jumps},
    {"jumps_from_a_handler", jumps_from_a_handler},
    {"thread_cancel", thread_cancel},
    {"thread_exit", thread_exit},
    {"process_exit", process_exit},
    {"recursion", recursion},
    {"tail_calls", calls_in_tail_position},
#ifdef __GLIBC__
    {"callers", callers},
    {"coroutines", coroutines},
    {"coroutines_between_threads", coroutines_between_threads},
#endif
};
MAIN(scenarios)
