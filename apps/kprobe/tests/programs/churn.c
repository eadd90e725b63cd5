/* churn THREADS: works its heap from several threads until a line arrives, then checks every result.
 * The main thread waits in epoll_wait: a stop that shows as EINTR is a fault. */
#include "program.h"
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { SLOTS = 64 };
COUNTER(work);
static atomic_int quit;
static atomic_int faults;

PROBED unsigned work(unsigned a, unsigned b)
{
    COUNT(work);
    return a * 2654435761u + b;
}

static void *run(void *seed)
{
    unsigned state = (unsigned)(long)seed;
    unsigned char *block[SLOTS] = {0};
    size_t size[SLOTS] = {0};
    while (!quit)
        for (int i = 0; i < SLOTS; i++) {
            if (block[i] && (block[i][0] != (unsigned char)i || block[i][size[i] - 1] != (unsigned char)i))
                faults++;
            free(block[i]);
            unsigned expected = state * 2654435761u + (unsigned)i;
            state = work(state, (unsigned)i);
            if (state != expected)
                faults++;
            size[i] = state % 9000 + 1;
            block[i] = malloc(size[i]);
            memset(block[i], i, size[i]);
        }
    for (int i = 0; i < SLOTS; i++)
        free(block[i]);
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t threads[32];
    int count = argc > 1 ? atoi(argv[1]) : 3;
    int ep = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, 0, &event);
    for (long i = 0; i < count; i++)
        pthread_create(&threads[i], 0, run, (void *)(i + 1));
    puts("ready");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(ep, &event, 1, 20);
        if (n == 1)
            break;
        if (n < 0) {
            fprintf(stderr, "epoll_wait: %s\n", strerror(errno));
            faults++;
        }
    }
    quit = 1;
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], 0);
    printf("faults=%d\n", faults);
    REPORT(work);
    return faults != 0;
}
