/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inline commands: what a person types into telnet. Words are separated by
 * blanks; "..." knows \n \r \t \b \a \xHH and \", '...' knows only \'. A closing
 * quote must end its word.
 */
#ifndef KV_INLINE_H
#define KV_INLINE_H

#include "resp.h"

/*
 * Splits a line into words, written one after the other to `text` (which has
 * room for len bytes). How many, or -1: quotes that don't balance.
 */
int inline_split(const uint8_t *line, size_t len, struct resp_arg *argv, uint8_t *text);

#endif
