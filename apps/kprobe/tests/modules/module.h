/* The C interface between a module and its host, as the crate kprobes has it (api/raw.rs). */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

struct text { const char *bytes; u64 length; };
#define TEXT(s) { s, sizeof(s) - 1 }

struct parameter { struct text name, description; u32 kind, capacity; void *value; };
enum { UNSIGNED = 1, SIGNED = 2, FLAG = 3, STRING = 4 };

struct module {
    u64 magic;
    u32 abi, regs_bytes;
    struct text name, description;
    struct parameter *parameters;
    u64 parameter_count;
    int (*init)(void);
    void (*exit)(void);
};
#define MAGIC 0x656c75646f6d706bUL /* "kpmodule" */

struct regs { u64 gpr[16], rip, flags; };
struct hit { struct regs *regs; u64 address, caller, trap, user; };

struct probe {
    u64 address;
    struct text symbol;
    u64 offset;
    u32 kind, maxactive;
    u64 before, after, fault, user;
    u32 entry_bytes, disabled;
};
enum { KPROBE = 1, JPROBE = 2, KRETPROBE = 3 };

struct counts { u64 hits, missed, returns, unwound, declined, faults; };
struct failure { u32 index, length; char text[496]; };

int kprobes_register(const struct probe *, u64, u32 *, struct failure *);
int kprobes_unregister(const u32 *, u64);
int kprobes_enable(u32, u32);
int kprobes_counts(u32, struct counts *);
u64 kprobes_symbol(const char *, u64);
void kprobes_print(const char *, u64);
int kprobes_read(u64, void *, u64);
u64 kprobes_process(void);
u64 kprobes_now(void);
