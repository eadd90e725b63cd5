/* hot: times short bursts of calls to one function, and prints each burst's cost in nanoseconds per call.
 *
 *     hot FUNCTION[=DEPTH] BURSTS MOST CPU [plugin=FILE] [beside=FUNCTION] [name=NAME] [wait]
 *
 * A burst takes about BURST_NS, but has MOST calls at most: a call may cost one nanosecond or a hundred microseconds, so
 * the program finds out first. CPU -1: stay on the processors that it was given. DEPTH is what t_nest is called with.
 * FILE is a shared object that puts a probe of its own into the function (peer_install) and counts (peer_hits). NAME is
 * what the kernel calls the program, for those who look for this one among others. With
 * `beside` a second thread calls another function meanwhile, on another processor. With `wait` the program says
 * `ready PID ADDRESS`, waits for a line before the first call, and after the last for the end of its input.
 *
 * Inside a burst there is no call but those: the clock is the time stamp counter, read in line, so that probes on libc's
 * functions cost a burst nothing. Each burst follows a pause, in which a reader of events can catch up, and WARM calls
 * that are not timed, in which the caches recover from the pause. All calls are counted, and printed: `calls`,
 * `beside` those of the second thread, `hits` what the detours here and a plugin have counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_NS = 400000, BURST_NS = 400000, WARM = 20 };

typedef long function(long, const char *);

function t_push, t_other, t_nest, t_mov, t_lea, t_nop5, t_jmp, t_call, t_getppid, t_trap, t_instrumented;
function t_empty, t_counter, t_registers, t_arithmetic;

static const struct entry {
    const char *name;
    function *call;
} functions[] = {
    {"t_push", t_push},           {"t_other", t_other},
    {"t_nest", t_nest},           {"t_mov", t_mov},
    {"t_lea", t_lea},             {"t_nop5", t_nop5},
    {"t_jmp", t_jmp},             {"t_call", t_call},
    {"t_getppid", t_getppid},     {"t_trap", t_trap},
    {"t_empty", t_empty},         {"t_counter", t_counter},
    {"t_registers", t_registers}, {"t_arithmetic", t_arithmetic},
    {"t_instrumented", t_instrumented},
};

/* What detours count. */
unsigned long hits;

void handler(unsigned long *registers)
{
    (void)registers;
    hits++;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "hot: %s: %s\n", what, why);
    exit(2);
}

static function *named(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strlen(functions[i].name) == length && memcmp(functions[i].name, name, length) == 0)
            return functions[i].call;
    die(name, "no such function");
    return NULL;
}

/* As a breakpoint host installs it: SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER, all signals but SIGTRAP masked. */
static void handle_traps(void)
{
    extern char trap_handler[], trap_restorer[];
    unsigned long action[4] = {(unsigned long)trap_handler, 0x4 | 0x04000000 | 0x08000000 | 0x40000000,
                               (unsigned long)trap_restorer, ~(1ul << (5 - 1))};
    if (syscall(SYS_rt_sigaction, 5, action, 0, 8) != 0)
        die("rt_sigaction", "refused");
}

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("sched_setaffinity", "refused");
}

/* The first processor but `cpu`; -1 if there is no other. */
static int another(int cpu)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (i != cpu && CPU_ISSET(i, &set))
                return i;
    return -1;
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

/* What is called, and how often it was. */
struct calls {
    function *call;
    long first, step;
    const char *text;
    unsigned long made;
};

static unsigned long burst(struct calls *what, long calls)
{
    function *call = what->call;
    long argument = what->first, step = what->step;
    const char *text = what->text;
    unsigned long begin = counter();
    for (long i = 0; i < calls; i++, argument += step)
        call(argument, text);
    unsigned long end = counter();
    what->made += calls;
    return end - begin;
}

static double counts_per_ns(void)
{
    double start = now(), ns;
    unsigned long first = counter();
    while ((ns = now() - start) < 2e6)
        ;
    return (counter() - first) / ns;
}

/* What so many calls cost if nothing comes between. */
static double undisturbed(struct calls *what, long calls)
{
    double least = burst(what, calls);
    for (int i = 0; i < 2; i++) {
        double took = burst(what, calls);
        least = took < least ? took : least;
    }
    return least;
}

/* How many calls make a burst. */
static long calibrate(struct calls *what, long most)
{
    double wanted = BURST_NS * counts_per_ns();
    long calls = 1;
    burst(what, WARM);
    for (;; calls *= 2) {
        double took = undisturbed(what, calls);
        if (took >= wanted / 8 || calls >= most) {
            long fitting = calls * wanted / (took > 0 ? took : 1);
            return fitting < 1 ? 1 : fitting > most ? most : fitting;
        }
    }
}

static struct calls second;
static int second_cpu;
static volatile int started, stop;

static void *call_beside(void *none)
{
    if (second_cpu >= 0)
        stay_on(second_cpu);
    do {
        burst(&second, 100);
        started = 1;
    } while (!stop);
    return none;
}

static unsigned long (*plugin_hits)(void);

static function *plug_in(const char *file, function *target)
{
    void *plugin = dlopen(file, RTLD_NOW);
    if (plugin == NULL)
        die("plugin", dlerror());
    function *(*install)(function *) = (function * (*)(function *)) dlsym(plugin, "peer_install");
    plugin_hits = (unsigned long (*)(void))dlsym(plugin, "peer_hits");
    function *call = install != NULL ? install(target) : NULL;
    if (call == NULL || plugin_hits == NULL)
        die(file, "cannot put its probe into the function");
    return call;
}

static const char *value(int argc, char **argv, const char *key)
{
    for (int i = 5; i < argc; i++)
        if (strncmp(argv[i], key, strlen(key)) == 0)
            return argv[i] + strlen(key);
    return NULL;
}

/* Says that all is ready, and waits to be told to begin. */
static void wait_for_start(function *call)
{
    printf("ready %d %p\n", getpid(), (void *)call);
    fflush(stdout);
    if (getchar() == EOF)
        exit(3);
}

/* Whoever looks at this program may do so until its input ends. */
static void wait_for_end(void)
{
    printf("done\n");
    fflush(stdout);
    while (getchar() != EOF)
        ;
}

static pthread_t start_beside(const char *name)
{
    pthread_t thread;
    second = (struct calls){named(name, strlen(name)), 0, 1, "a string", 0};
    if (pthread_create(&thread, NULL, call_beside, NULL) != 0)
        die("pthread_create", "refused");
    while (!started)
        pause_for_readers();
    return thread;
}

/* The costs of bursts, in nanoseconds for each call. */
static void measure(struct calls *what, long most, double *costs, long bursts)
{
    long calls = calibrate(what, most);
    double start = now();
    unsigned long first = counter();
    for (long i = 0; i < bursts; i++) {
        pause_for_readers();
        burst(what, WARM);
        costs[i] = burst(what, calls);
    }
    double ns_per_count = (now() - start) / (counter() - first);
    for (long i = 0; i < bursts; i++)
        costs[i] *= ns_per_count / calls;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        die("usage", "hot FUNCTION[=DEPTH] BURSTS MOST CPU [plugin=FILE] [beside=FUNCTION] [name=NAME] [wait]");
    const char *plugin = value(argc, argv, "plugin="), *beside = value(argc, argv, "beside=");
    const char *name = value(argc, argv, "name="), *wait = value(argc, argv, "wait");
    size_t length = strcspn(argv[1], "=");
    long depth = argv[1][length] == '=' ? atol(argv[1] + length + 1) : 0;
    long bursts = atol(argv[2]), most = atol(argv[3]), cpu = atol(argv[4]), nested = depth > 0 ? depth : 1;
    struct calls what = {named(argv[1], length), depth, depth == 0, "a string", 0};
    double *costs = calloc(bursts > 0 ? bursts : 1, sizeof *costs);
    if (bursts < 1 || most < 1 || depth < 0 || costs == NULL)
        die("usage", "there must be bursts and calls");
    if (name != NULL)
        prctl(PR_SET_NAME, name);
    second_cpu = another(cpu);
    if (cpu >= 0)
        stay_on(cpu);
    if (what.call == t_trap)
        handle_traps();
    if (plugin != NULL)
        what.call = plug_in(plugin, what.call);
    if (wait != NULL)
        wait_for_start(what.call);
    pthread_t thread = beside != NULL ? start_beside(beside) : 0;
    measure(&what, most, costs, bursts);
    stop = 1;
    if (beside != NULL && pthread_join(thread, NULL) == 0)
        printf("beside %lu\n", second.made);
    printf("calls %lu\n", what.made * nested);
    if (plugin_hits != NULL || hits > 0)
        printf("hits %lu\n", plugin_hits != NULL ? plugin_hits() : hits);
    for (long i = 0; i < bursts; i++)
        printf("burst %.3f\n", costs[i] / nested);
    if (wait != NULL)
        wait_for_end();
    return 0;
}
