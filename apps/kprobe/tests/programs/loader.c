/* loader PLUGIN TIMES: loads the library, calls `plug` nine times, unloads it; TIMES times over. */
#include "program.h"
#include <dlfcn.h>

long plug_calls;

int main(int argc, char **argv)
{
    long sum = 0;
    int times = argc > 2 ? atoi(argv[2]) : 1;
    if (argc > 3)
        ready_and_wait();
    for (int i = 0; i < times; i++) {
        void *handle = dlopen(argv[1], RTLD_NOW);
        if (!handle) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        int (*plug)(int) = (int (*)(int))dlsym(handle, "plug");
        for (int k = 0; k < 9; k++)
            sum += plug(k);
        dlclose(handle);
    }
    printf("sum=%ld\n", sum);
    printf("calls plug=%ld\n", plug_calls);
    return 0;
}
