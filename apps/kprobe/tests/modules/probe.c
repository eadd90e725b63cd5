/* One probe, and everything that can go wrong. NAME is the module's name. */
#include "module.h"

struct string { u64 length; char bytes[64]; };
static struct string symbol = { 4, "work" };
static u64 kind = KPROBE, level = 1;
static long offset;
static u8 print, fail, spin, crash, fault, hang, trap, bad, exit_crash;
static u32 id;
static u64 entered, left;

#define STR(x) #x
#define STRING_OF(x) STR(x)
#define PUT(s) kprobes_print(s, sizeof(s) - 1)

static struct parameter parameters[] = {
    { TEXT("symbol"), TEXT("what is probed"), STRING, sizeof symbol, &symbol },
    { TEXT("kind"), TEXT("which probe"), UNSIGNED, 8, &kind },
    { TEXT("level"), TEXT("a number"), UNSIGNED, 8, &level },
    { TEXT("offset"), TEXT("a number with a sign"), SIGNED, 8, &offset },
    { TEXT("print"), TEXT("print at each hit"), FLAG, 1, &print },
    { TEXT("fail"), TEXT("init says no"), FLAG, 1, &fail },
    { TEXT("spin"), TEXT("init does not end"), FLAG, 1, &spin },
    { TEXT("crash"), TEXT("init faults"), FLAG, 1, &crash },
    { TEXT("trap"), TEXT("init executes a breakpoint"), FLAG, 1, &trap },
    { TEXT("fault"), TEXT("the handler faults in the call of this level"), FLAG, 1, &fault },
    { TEXT("hang"), TEXT("the handler waits in the call of this level"), FLAG, 1, &hang },
    { TEXT("bad"), TEXT("a handler that is none"), FLAG, 1, &bad },
    { TEXT("exit_crash"), TEXT("exit faults"), FLAG, 1, &exit_crash },
};

static void number(u64 n)
{
    char text[24];
    int at = sizeof text;
    do
        text[--at] = '0' + n % 10;
    while (n /= 10);
    kprobes_print(text + at, sizeof text - at);
}

static u32 before(struct hit *hit, void *data)
{
    u64 calls = __atomic_add_fetch(&entered, 1, __ATOMIC_RELAXED);
    if (kind == KRETPROBE)
        *(u64 *)data = hit->regs->gpr[7];
    if (fault && calls >= level)
        *(volatile int *)8 = 1;
    if (hang && calls == level)
        for (u64 end = kprobes_now() + 12000000000UL; kprobes_now() < end;)
            ;
    if (print)
        PUT("hit");
    return 0;
}

static void after(struct hit *hit, void *data)
{
    /* The first argument is still what it was at the entry. */
    if (*(u64 *)data != hit->user)
        __atomic_fetch_add(&left, 1, __ATOMIC_RELAXED);
}

static int init(void)
{
    struct failure failure;
    struct probe probe = {
        .symbol = { symbol.bytes, symbol.length },
        .kind = kind,
        .before = bad ? 0x1000 : (u64)before,
        .after = kind == KRETPROBE ? (u64)after : 0,
        .user = ~0UL,
        .entry_bytes = kind == KRETPROBE ? 8 : 0,
    };
    if (crash)
        *(volatile int *)8 = 1;
    if (trap)
        __asm__ volatile("int3");
    while (spin)
        __asm__ volatile("pause");
    if (fail)
        return -7;
    number(level);
    number((u64)-offset);
    if (kprobes_register(&probe, 1, &id, &failure)) {
        kprobes_print(failure.text, failure.length);
        return -1;
    }
    PUT(STRING_OF(NAME) " is here");
    return 0;
}

static void leave(void)
{
    struct counts counts;
    if (exit_crash)
        *(volatile int *)8 = 1;
    if (kprobes_unregister(&id, 1) || kprobes_counts(id, &counts))
        PUT("it is wrong");
    if (counts.hits != entered || (kind == KRETPROBE && counts.returns < left))
        PUT("counts are wrong");
    if (entered)
        PUT("was hit");
    PUT(STRING_OF(NAME) " leaves");
}

struct module kprobes_module = {
    MAGIC, ABI, REGS, TEXT(STRING_OF(NAME)), TEXT("a module for tests"),
    parameters, sizeof parameters / sizeof *parameters, init, leave,
};
