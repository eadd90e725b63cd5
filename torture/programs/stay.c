/* A probe that counts and stays, while others come and go. */
#include "module.h"

struct string { u64 length; char bytes[64]; };
static struct string symbol = { 4, "work" };
static u64 offset;
static u32 id;

static struct parameter parameters[] = {
    { TEXT("symbol"), TEXT("whose instruction is probed"), STRING, sizeof symbol, &symbol },
    { TEXT("offset"), TEXT("which instruction"), UNSIGNED, 8, &offset },
};

static int init(void)
{
    struct failure failure;
    struct probe probe = { .symbol = { symbol.bytes, symbol.length }, .offset = offset, .kind = KPROBE };
    if (kprobes_register(&probe, 1, &id, &failure)) {
        kprobes_print(failure.text, failure.length);
        return -1;
    }
    return 0;
}

static void leave(void)
{
    kprobes_unregister(&id, 1);
}

struct module kprobes_module = {
    MAGIC, ABI, REGS, TEXT("stay"), TEXT("counts and stays"), parameters, sizeof parameters / sizeof *parameters,
    init, leave,
};
