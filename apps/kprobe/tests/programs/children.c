/* children SCENARIO: programs that start others, with probed functions on the way. `calls` counts the
 * first process, `all` every process that runs this program. */
#define _GNU_SOURCE
#include "program.h"
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 20 };
extern char **environ;
COUNTER(work);

PROBED int work(int a)
{
    COUNT(work);
    return a * 3 + 1;
}

static int ended_well(pid_t child)
{
    int status = -1;
    waitpid(child, &status, 0);
    return status == 0;
}

static void report(int well, int in_children)
{
    printf("children well=%d\n", well);
    REPORT(work);
    printf("all work=%ld\n", atomic_load(&work_calls) + in_children);
}

static void spawn_dup2(void)
{
    int well = 0;
    for (int i = 0; i < CHILDREN; i++) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none;
        char *arguments[] = {"true", 0};
        pid_t child;
        sigemptyset(&none);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, 1, 7);
        posix_spawnattr_init(&attributes);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
        posix_spawnattr_setsigmask(&attributes, &none);
        if (!posix_spawnp(&child, "true", &actions, &attributes, arguments, environ))
            well += ended_well(child);
        work(i);
    }
    report(well, 0);
}

static void vfork_exec(void)
{
    volatile int well = 0;
    for (volatile int i = 0; i < CHILDREN; i++) {
        work(i);
        pid_t child = vfork();
        if (!child) {
            execlp("true", "true", (char *)0);
            _exit(1);
        }
        well += ended_well(child);
    }
    report(well, 0);
}

static void fork_calls(void)
{
    int well = 0;
    fflush(stdout);
    for (int i = 0; i < CHILDREN; i++) {
        work(i);
        pid_t child = fork();
        if (!child) {
            int sum = 0;
            for (int k = 0; k < 50; k++)
                sum += work(k);
            _exit(sum != 3 * 49 * 25 + 50);
        }
        well += ended_well(child);
    }
    report(well, 50 * CHILDREN);
}

static void system_calls(void)
{
    int well = 0;
    for (int i = 0; i < CHILDREN; i++) {
        work(i);
        well += system("true && (exit 0)") == 0;
    }
    report(well, 0);
}

/* Each link calls `work` ten times and executes the next one. */
static void exec_link(int left)
{
    char text[16];
    for (int i = 0; i < 10; i++)
        work(i);
    printf("link %d\n", left);
    fflush(stdout);
    if (!left)
        return;
    snprintf(text, sizeof text, "%d", left - 1);
    execl("/proc/self/exe", "children", "exec_chain", text, (char *)0);
    _exit(1);
}

int main(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"spawn_dup2", spawn_dup2},
        {"vfork_exec", vfork_exec},
        {"fork_calls", fork_calls},
        {"system", system_calls},
    };
    if (argc > 2 && !strcmp(argv[1], "exec_chain")) {
        exec_link(atoi(argv[2]));
        return 0;
    }
    return run_scenario(scenarios, sizeof scenarios / sizeof *scenarios, argc, argv);
}
