/* sealed: a program whose seccomp filter kills it at the system calls that an injection needs. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define KILL_ON(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

__attribute__((noipa)) int work(int a) { return a * 3 + 1; }

int main(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        KILL_ON(SYS_mmap), KILL_ON(SYS_memfd_create), KILL_ON(SYS_mprotect), KILL_ON(SYS_rt_sigaction),
        KILL_ON(SYS_membarrier), KILL_ON(SYS_open), KILL_ON(SYS_openat),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    static char room[256];
    int sum = 0;
    setvbuf(stdout, room, _IOFBF, sizeof room);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    puts("ready");
    fflush(stdout);
    getchar();
    for (int i = 0; i < 100; i++)
        sum += work(i);
    printf("sum=%d\n", sum);
    return 0;
}
