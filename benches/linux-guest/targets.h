/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* How many functions to put probes on targets.S makes, and how far apart. */
#ifndef TARGETS_H
#define TARGETS_H

/* Of each function. A row of the table takes ROW_COPIES of them. */
#define COPIES 64
#define COPY_SIZE 64

/* Functions whose only use is to fill the table of probes. */
#define FILLERS 1000
#define FILLER_SIZE 16

#endif
