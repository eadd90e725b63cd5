/* Runs the functions of the behaviour suite, which are linked with it, as standard input says.
 *
 * Each line of the input is a command, and is answered by a line:
 *
 *   where NAME                 the function's address
 *   call NAME A B [NAME A B]…  the results; several functions run in threads of their own, at the same time
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 8

typedef unsigned long word;

struct entry {
    const char *name;
    word (*run)(word, word);
};

/* Ends with an empty entry. */
extern const struct entry suite_table[];

struct call {
    word (*run)(word, word);
    word arguments[2];
    word result;
};

static pthread_barrier_t together;

static const struct entry *find(const char *name)
{
    for (const struct entry *e = suite_table; e->name; e++)
        if (name && !strcmp(e->name, name))
            return e;
    fprintf(stderr, "no function %s\n", name ? name : "named");
    exit(2);
}

static void *thread(void *argument)
{
    struct call *call = argument;
    pthread_barrier_wait(&together);
    call->result = call->run(call->arguments[0], call->arguments[1]);
    return NULL;
}

static void run_together(struct call *calls, size_t count)
{
    pthread_t threads[MOST];
    pthread_barrier_init(&together, NULL, count);
    for (size_t i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, thread, &calls[i]))
            exit(3);
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&together);
}

static void run_all(char *rest)
{
    struct call calls[MOST];
    size_t count = 0;
    for (char *name; count < MOST && (name = strtok(rest, " \n")); rest = NULL) {
        calls[count].run = find(name)->run;
        for (int i = 0; i < 2; i++) {
            char *number = strtok(NULL, " \n");
            calls[count].arguments[i] = number ? strtoul(number, NULL, 10) : 0;
        }
        count++;
    }
    if (count == 1)
        calls[0].result = calls[0].run(calls[0].arguments[0], calls[0].arguments[1]);
    else
        run_together(calls, count);
    for (size_t i = 0; i < count; i++)
        printf("%s%lu", i ? " " : "", calls[i].result);
    putchar('\n');
}

int main(void)
{
    char line[512];
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "where ", 6))
            printf("%lu\n", (word)find(strtok(line + 6, " \n"))->run);
        else if (!strncmp(line, "call ", 5))
            run_all(line + 5);
        else
            return 2;
        fflush(stdout);
    }
    return 0;
}
