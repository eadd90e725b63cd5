// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/*
 * probe_cost: what one hit of a Linux kprobe costs, in counts of the time stamp counter.
 *
 * Made for a guest under QEMU's `-icount shift=0`, where that counter counts guest instructions: figures are exact,
 * and the same in every run. A row is one kind of probe on one kind of function. Its function is called in short
 * bursts with interrupts off; the cheapest burst counts, and beside it the cheapest burst of the same calls without
 * the probe.
 *
 * Every row is measured twice: alone, when nothing else is probed, and in company, when OTHERS other addresses are.
 * Linux keeps probes in 64 hash chains, newest first. A hit that is stepped walks two: to its probe, and in vain to
 * the end of another, for the int3 behind the copied instruction. So the price of company depends on addresses and on
 * what was registered later. Therefore half of the company is registered before the rows' probes and half after them,
 * and each row has ROW_COPIES functions at different addresses, over which figures are summed. The rows are each
 * other's company. (Alone, too, a probe may stand in the chain that is walked in vain: one copy in 64 does, for 4
 * instructions more.)
 *
 * debug.kprobes-optimization must be set before the module is loaded: to 0 for `placement=int3`, the rows in which
 * probes stay breakpoints (and those on ftrace's hook); to 1 for `placement=jump`, those in which they become jumps.
 *
 * A row is a line in the kernel's log, PLAIN and PROBED being what CALLS calls cost:
 *
 *     probe_cost: row|PROBE|FUNCTION|PLACED|OTHERS|CALLS|PLAIN|PROBED
 *
 * Instead of rows there is a line `probe_cost: error|WHY` if a probe cannot be registered, is not placed as its row
 * says, or did not run exactly its row's handlers. Probes may then be left behind: the guest is not to be used any
 * further.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/string.h>
#include <asm/msr.h>

#include "targets.h"

#define OTHERS 1000
#define ROW_COPIES 8
#define BURSTS 5
#define CALLS 20

static char *placement = "int3";
module_param(placement, charp, 0444);
MODULE_PARM_DESC(placement, "the rows to measure: int3 or jump");

typedef long function(long);

struct target {
	const char *name;
	u8 (*code)[COPY_SIZE];
	/* Copies that rows have taken. */
	int taken;
};

#define TARGET(name_)                                  \
	extern u8 target_##name_[COPIES][COPY_SIZE];   \
	static struct target name_ = { #name_, target_##name_ }
TARGET(lea);
TARGET(push);
TARGET(nop);
TARGET(jmp);
TARGET(call);
TARGET(fentry);

extern u8 filler[FILLERS][FILLER_SIZE];
static struct kprobe fillers[FILLERS];

static unsigned long runs;

static int pre(struct kprobe *probe, struct pt_regs *regs)
{
	runs++;
	return 0;
}

static void post(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
	runs++;
}

static int instance(struct kretprobe_instance *of, struct pt_regs *regs)
{
	runs++;
	return 0;
}

/* What is registered on an address. */
struct kind {
	const char *name;
	/* Either as many kprobes with these handlers, */
	int kprobes;
	kprobe_pre_handler_t pre;
	kprobe_post_handler_t post;
	/* or a kretprobe. */
	kretprobe_handler_t entry, on_return;
	/* Handlers that one call runs. */
	int handlers;
};

static const struct kind no_handlers = { "no handlers", .kprobes = 1 };
static const struct kind pre_only = { "pre", .kprobes = 1, .pre = pre, .handlers = 1 };
static const struct kind pre_post = { "pre + post", .kprobes = 1, .pre = pre, .post = post, .handlers = 2 };
static const struct kind two = { "2 probes, pre", .kprobes = 2, .pre = pre, .handlers = 2 };
static const struct kind returns = { "return", .on_return = instance, .handlers = 1 };
static const struct kind entry_returns = { "entry + return", .entry = instance, .on_return = instance, .handlers = 2 };

/* How a probe is placed, told by the byte at its address. */
struct place {
	const char *name;
	u8 byte;
};

static const struct place int3 = { "int3", 0xcc };
static const struct place jump = { "jump", 0xe9 };
static const struct place ftrace = { "ftrace", 0xe8 };

struct probe {
	struct kprobe kprobe[2];
	struct kretprobe kretprobe;
};

struct row {
	const struct kind *kind;
	struct target *target;
	const struct place *place;
	/* The first of its copies. */
	u8 (*code)[COPY_SIZE];
	/* What calls cost before anything was probed. */
	u64 plain;
	struct probe probe[ROW_COPIES];
};

static struct row int3_rows[] = {
	{ &no_handlers, &lea, &int3 },
	{ &pre_only, &lea, &int3 },
	{ &pre_post, &lea, &int3 },
	{ &two, &lea, &int3 },
	{ &pre_only, &push, &int3 },
	{ &pre_only, &nop, &int3 },
	{ &pre_only, &jmp, &int3 },
	{ &pre_only, &call, &int3 },
	{ &returns, &lea, &int3 },
	{ &entry_returns, &lea, &int3 },
	{ &no_handlers, &fentry, &ftrace },
	{ &pre_only, &fentry, &ftrace },
	{ &pre_post, &fentry, &ftrace },
	{ &returns, &fentry, &ftrace },
	{ &entry_returns, &fentry, &ftrace },
};

static struct row jump_rows[] = {
	{ &no_handlers, &lea, &jump },
	{ &pre_only, &lea, &jump },
	{ &two, &lea, &jump },
	{ &pre_only, &push, &jump },
	{ &returns, &lea, &jump },
	{ &entry_returns, &lea, &jump },
};

static struct row *rows;
static int row_count;

static int plant(struct row *row, int copy)
{
	struct probe *probe = &row->probe[copy];
	const struct kind *kind = row->kind;
	int i, error = 0;

	memset(probe, 0, sizeof(*probe));
	if (kind->on_return) {
		probe->kretprobe.kp.addr = row->code[copy];
		probe->kretprobe.handler = kind->on_return;
		probe->kretprobe.entry_handler = kind->entry;
		return register_kretprobe(&probe->kretprobe);
	}
	for (i = 0; i < kind->kprobes && !error; i++) {
		probe->kprobe[i].addr = row->code[copy];
		probe->kprobe[i].pre_handler = kind->pre;
		probe->kprobe[i].post_handler = kind->post;
		error = register_kprobe(&probe->kprobe[i]);
	}
	return error;
}

static void remove(struct row *row, int copy)
{
	struct probe *probe = &row->probe[copy];

	if (row->kind->on_return)
		unregister_kretprobe(&probe->kretprobe);
	else
		unregister_kprobes((struct kprobe *[]){ &probe->kprobe[0], &probe->kprobe[1] }, row->kind->kprobes);
}

/* Linux makes jumps of breakpoints later, in a work queue. */
static bool is_placed(struct row *row, int copy)
{
	int patience = 500;

	while (READ_ONCE(row->code[copy][0]) != row->place->byte && patience--)
		msleep(10);
	return READ_ONCE(row->code[copy][0]) == row->place->byte;
}

static u64 burst(function *call)
{
	unsigned long flags;
	u64 start, end;
	int i;

	local_irq_save(flags);
	start = rdtsc_ordered();
	for (i = 0; i < CALLS; i++) {
		OPTIMIZER_HIDE_VAR(call);
		call(i);
	}
	end = rdtsc_ordered();
	local_irq_restore(flags);
	return end - start;
}

static u64 cheapest_burst(struct row *row, int copy)
{
	u64 cheapest = U64_MAX;
	int i;

	for (i = 0; i < BURSTS; i++)
		cheapest = min(cheapest, burst((function *)row->code[copy]));
	return cheapest;
}

static int fail(struct row *row, const char *why, long value)
{
	pr_info("error|%s on %s, %s: %s (%ld)\n", row->kind->name, row->target->name, row->place->name, why, value);
	return -EIO;
}

static int plant_checked(struct row *row, int copy)
{
	int error = plant(row, copy);

	return error ? fail(row, "cannot be registered", error) : 0;
}

/* Adds what calls of a probed copy cost. */
static int measure(struct row *row, int copy, u64 *cost)
{
	const long wanted = BURSTS * CALLS * row->kind->handlers;

	if (!is_placed(row, copy))
		return fail(row, "placed otherwise, first byte", row->code[copy][0]);
	runs = 0;
	*cost += cheapest_burst(row, copy);
	return runs == wanted ? 0 : fail(row, "handlers ran too often by", (long)runs - wanted);
}

static void print(struct row *row, int others, u64 probed)
{
	pr_info("row|%s|%s|%s|%d|%d|%llu|%llu\n", row->kind->name, row->target->name, row->place->name, others,
		ROW_COPIES * CALLS, row->plain, probed);
}

/* No other address is probed than that of the copy that is called. */
static int alone(struct row *row)
{
	u64 probed = 0;
	int copy;

	for (copy = 0; copy < ROW_COPIES; copy++) {
		row->plain += cheapest_burst(row, copy);
		if (plant_checked(row, copy) || measure(row, copy, &probed))
			return -EIO;
		remove(row, copy);
	}
	print(row, 0, probed);
	return 0;
}

/* A post handler, so that these stay breakpoints: how they are placed does not matter, and optimizing takes time. */
static int plant_fillers(int from, int to)
{
	int i, error;

	for (i = from; i < to; i++) {
		fillers[i].addr = filler[i];
		fillers[i].pre_handler = pre;
		fillers[i].post_handler = post;
		error = register_kprobe(&fillers[i]);
		if (error) {
			pr_info("error|filler %d cannot be registered (%d)\n", i, error);
			return error;
		}
	}
	return 0;
}

static int plant_company(int count)
{
	int copy;
	struct row *row;

	if (plant_fillers(0, count / 2))
		return -EIO;
	for (row = rows; row < rows + row_count; row++)
		for (copy = 0; copy < ROW_COPIES; copy++)
			if (plant_checked(row, copy))
				return -EIO;
	return plant_fillers(count / 2, count);
}

static int in_company(struct row *row)
{
	u64 probed = 0;
	int copy;

	for (copy = 0; copy < ROW_COPIES; copy++)
		if (measure(row, copy, &probed))
			return -EIO;
	print(row, OTHERS, probed);
	return 0;
}

static void remove_company(int count)
{
	int i, copy;
	struct row *row;
	static struct kprobe *batch[FILLERS];

	for (row = rows; row < rows + row_count; row++)
		for (copy = 0; copy < ROW_COPIES; copy++)
			remove(row, copy);
	for (i = 0; i < count; i++)
		batch[i] = &fillers[i];
	unregister_kprobes(batch, count);
}

static void choose_rows(void)
{
	struct row *row;

	rows = !strcmp(placement, "jump") ? jump_rows : int3_rows;
	row_count = !strcmp(placement, "jump") ? ARRAY_SIZE(jump_rows) : ARRAY_SIZE(int3_rows);
	for (row = rows; row < rows + row_count; row++) {
		row->code = row->target->code + row->target->taken;
		row->target->taken += ROW_COPIES;
	}
}

/* Never fails: after an error probes may be left, and the module must stay where their handlers are. */
static int __init probe_cost_init(void)
{
	int count;
	struct row *row;

	choose_rows();
	for (row = rows; row < rows + row_count; row++)
		if (alone(row))
			return 0;
	/* Every copy of every row is an address of the company, but the one that is measured. */
	count = OTHERS + 1 - row_count * ROW_COPIES;
	if (plant_company(count))
		return 0;
	for (row = rows; row < rows + row_count; row++)
		if (in_company(row))
			return 0;
	remove_company(count);
	pr_info("done|%s\n", placement);
	return 0;
}

static void __exit probe_cost_exit(void)
{
}

module_init(probe_cost_init);
module_exit(probe_cost_exit);
MODULE_DESCRIPTION("what one hit of a kprobe costs");
MODULE_LICENSE("Dual MIT/GPL");
