/* hidden: a program that may not be dumped, so that only root may trace it. */
#include <stdio.h>
#include <sys/prctl.h>

__attribute__((noipa)) int work(int a) { return a * 3 + 1; }

int main(void)
{
    int sum = 0;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    puts("ready");
    fflush(stdout);
    getchar();
    for (int i = 0; i < 100; i++)
        sum += work(i);
    printf("sum=%d\n", sum);
    return 0;
}
