/* victim CALLS THREADS [wait]: calls `work` exactly CALLS * THREADS times, with mallocs around it. */
#include "program.h"

/* A function whose first instruction has five bytes, whatever the compiler. */
__asm__(".text\n.globl five_bytes\n.type five_bytes, @function\nfive_bytes:\n\tmovl $0x90909090, %eax\n\tret\n"
        ".size five_bytes, . - five_bytes\n");
#include <pthread.h>

COUNTER(work);
COUNTER(leaf);
static long calls;

PROBED int leaf(int a)
{
    COUNT(leaf);
    return a ^ 0x55;
}

PROBED int work(int a, int b)
{
    COUNT(work);
    return (b % 100 ? a * 3 + b : leaf(a) + b) & 0xffff;
}

static void *run(void *seed)
{
    long sum = 0;
    for (long i = 0; i < calls; i++) {
        int *p = i % 64 ? 0 : malloc(sizeof *p * (1 + i % 100));
        sum += work((int)(long)seed, (int)i);
        if (p) {
            *p = (int)sum;
            sum += *p & 1;
            free(p);
        }
    }
    return (void *)sum;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    int count = argc > 2 ? atoi(argv[2]) : 1;
    long sum = 0;
    calls = argc > 1 ? atol(argv[1]) : 1000;
    if (argc > 3 && !strcmp(argv[3], "wait"))
        ready_and_wait();
    for (long i = 1; i < count; i++)
        pthread_create(&threads[i], 0, run, (void *)i);
    sum += (long)run((void *)0);
    for (int i = 1; i < count; i++) {
        void *part;
        pthread_join(threads[i], &part);
        sum += (long)part;
    }
    printf("sum=%ld\n", sum);
    REPORT(work);
    REPORT(leaf);
    return 7;
}
