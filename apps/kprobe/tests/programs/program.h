/* What the test programs share: marks for probed functions, exact call counts, the start signal. */
#ifndef PROGRAM_H
#define PROGRAM_H
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A probed function: the compiler may neither inline, clone nor reason about it. */
#define PROBED __attribute__((noipa))

/* The counts a probe is compared with: the program's own. */
#define COUNTER(name) static atomic_long name##_calls
#define COUNT(name) atomic_fetch_add_explicit(&name##_calls, 1, memory_order_relaxed)
#define REPORT(name) printf("calls %s=%ld\n", #name, atomic_load(&name##_calls))

/* Says that the program is up, and waits for a line (or the end) of standard input. */
static inline void ready_and_wait(void)
{
    puts("ready");
    fflush(stdout);
    for (int c = getchar(); c != EOF && c != '\n';)
        c = getchar();
}

struct scenario {
    const char *name;
    void (*run)(void);
};

/* Runs the scenario that the first argument names; exit status 2 if there is none. */
static inline int run_scenario(const struct scenario *table, size_t count, int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < count; i++)
        if (!strcmp(argv[1], table[i].name)) {
            table[i].run();
            return 0;
        }
    fprintf(stderr, "no such scenario\n");
    return 2;
}
#define MAIN(table) \
    int main(int argc, char **argv) { return run_scenario(table, sizeof table / sizeof *table, argc, argv); }
#endif
