/* hot KIND THREADS: threads that do nothing but call one function, between the lines `go` and `stop`.
 * KIND says what a jump over its first five bytes would displace. Each returns its argument + 7. */
#include "torture.h"

__asm__(".text\n.balign 64\n.globl hot_long\n.type hot_long, @function\n"
        "hot_long: .cfi_startproc\n .byte 0x48, 0x8d, 0x87, 7, 0, 0, 0\n ret\n .cfi_endproc\n" /* lea rax, [rdi + 7] */
        ".size hot_long, . - hot_long\n"
        ".balign 64\n.globl hot_several\n.type hot_several, @function\n"
        "hot_several: .cfi_startproc\n push %rbx\n mov %rdi, %rbx\n lea 7(%rbx), %rax\n pop %rbx\n ret\n .cfi_endproc\n"
        ".size hot_several, . - hot_several\n"
        ".balign 64\n.skip 62\n.globl hot_across\n.type hot_across, @function\n"
        "hot_across: .cfi_startproc\n push %rbx\n mov %rdi, %rbx\n lea 7(%rbx), %rax\n pop %rbx\n ret\n .cfi_endproc\n"
        ".size hot_across, . - hot_across\n");

long hot_long(long), hot_several(long), hot_across(long);

static const struct { const char *name; long (*function)(long); } kinds[] = {
    {"long", hot_long}, {"several", hot_several}, {"across", hot_across},
};
static long (*function)(long);
static atomic_int running;
static atomic_long calls;

static void *work(void *unused)
{
    (void)unused;
    while (running) {
        for (long x = 0; x < 50; x++)
            must(function(x * 1000003) == x * 1000003 + 7, "a result");
        atomic_fetch_add(&calls, 50);
    }
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    char line[64];
    int count = argc > 2 ? atoi(argv[2]) : 3;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (argc > 1 && !strcmp(argv[1], kinds[i].name))
            function = kinds[i].function;
    if (!function || count > 64)
        return 2;
    say("ready");
    while (next_line(line, sizeof line)) {
        if (!strcmp(line, "go")) {
            running = 1;
            for (int i = 0; i < count; i++)
                pthread_create(&threads[i], 0, work, 0);
            say("going");
        } else if (!strcmp(line, "stop")) {
            running = 0;
            for (int i = 0; i < count; i++)
                pthread_join(threads[i], 0);
            /* TORTURE_LIE: for the control. */
            printf("calls=%ld\nfaults=%ld\nstopped\n", calls + (getenv("TORTURE_LIE") != 0), (long)faults);
            fflush(stdout);
        }
    }
    return faults != 0;
}
