/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What DPDK says, kept instead of printed: the last few lines of its log, and of what the thread between
 * capture_begin() and capture_end() writes to stdout or stderr (EAL's usage, getopt's complaints). What other
 * threads print meanwhile goes where it should.
 */
#ifndef HYBRID_DPDK_CAPTURE_H
#define HYBRID_DPDK_CAPTURE_H

#include <stddef.h>

/* Serialised by the caller: one thread at a time. */
void capture_begin(void);
void capture_end(void);

void capture_clear(void);
/* The last two different lines, without DPDK's severity and newlines; "it said nothing". */
void capture_text(char *text, size_t size);

#endif
