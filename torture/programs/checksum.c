/* checksum: prints a number that depends on every instruction of `mix`. */
#include <stdio.h>

__attribute__((noipa)) unsigned mix(unsigned value)
{
    __asm__("rol $7, %%eax; addl $0x5eed5eed, %%eax; xor $0x33, %%al" : "+a"(value) : : "cc");
    return value;
}

int main(void)
{
    unsigned value = 1;
    for (int i = 0; i < 100; i++)
        value = mix(value);
    printf("%u\n", value);
    return 0;
}
