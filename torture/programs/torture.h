/* What the tortured programs have in common: they count and check themselves, and obey lines on standard input. */
#ifndef TORTURE_H
#define TORTURE_H
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROBED __attribute__((noipa))

static atomic_long faults;

/* A result that is not what it must be. */
static inline void must(int holds, const char *what)
{
    if (!holds && atomic_fetch_add(&faults, 1) < 10) {
        char text[160];
        int length = snprintf(text, sizeof text, "fault: %s\n", what);
        if (write(2, text, (size_t)length) < 0)
            _exit(99);
    }
}

static inline void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

/* The next line; 0 at the end of the input. */
static inline int next_line(char *line, int size)
{
    while (!fgets(line, size, stdin)) {
        if (!ferror(stdin) || errno != EINTR)
            return 0;
        clearerr(stdin);
    }
    line[strcspn(line, "\n")] = 0;
    return 1;
}
#endif
