/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies, written straight into the memory that they will leave from.
 *
 * A reply writes to *room* that a sink gives it: pieces of packet memory in the
 * server, a plain buffer in a test. Before each command there is room for
 * REPLY_ROOM bytes, which is enough for any status, number or error, so commands
 * never see a full queue. What may be longer (a value, INFO) is written at once
 * if it fits; otherwise it becomes an *item*: a pointer to bytes that are pinned
 * in the store. Items are sent as the sink takes them, while the connection reads
 * nothing more: a client that doesn't read costs a list of pointers, not copies.
 */
#ifndef KV_REPLY_H
#define KV_REPLY_H

#include "memory.h"

enum {
  REPLY_ROOM = 640,
  REPLY_ITEMS_MAX = 64 * 1024 + 1, /* of one command: MGET of RESP_ARGS_MAX keys */
};

struct reply;

struct reply_sink {
  /* Sets at and end to the next piece of the room there is; called while beyond > 0. */
  void (*next)(struct reply *r);
  /* Makes more room, `want` bytes if it can. False: not now. */
  bool (*more)(struct reply *r, size_t want);
};

struct reply_item {
  struct pin *pin; /* NULL: the bytes are constant */
  const uint8_t *data;
  uint32_t len;
  uint32_t bulk; /* 1: framed as a bulk string; 0: as it is */
};

struct reply {
  uint8_t *at, *end; /* the piece being written */
  size_t beyond;     /* room in the pieces after it */
  const struct reply_sink *sink;
  struct reply_item *items; /* the shared array, or a block once the command is over */
  uint32_t count, next;
  size_t sent; /* of items[next] */
};

void reply_init(struct reply *r, const struct reply_sink *sink);

/* Between commands: is there room for the next one's reply? */
bool reply_ready(struct reply *r);

/* n <= REPLY_ROOM in all per command, apart from constants, which may always be written. */
void reply_bytes(struct reply *r, const void *bytes, size_t n);
void reply_integer(struct reply *r, int64_t value);
void reply_array(struct reply *r, size_t count);
/* "-ERR ..." unless it starts with '-'; line ends within become blanks. */
void reply_error(struct reply *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* String constants only: they may be sent later. */
void reply_constant(struct reply *r, const char *bytes, size_t n);
#define REPLY(r, text) reply_constant(r, text, sizeof(text) - 1)

/* A bulk string of bytes that live in the block of `pin`. */
void reply_value(struct reply *r, struct pin *pin, const uint8_t *data, size_t len);
/* The same, unframed: the text is a whole reply already. pin NULL: a constant. */
void reply_raw(struct reply *r, struct pin *pin, const uint8_t *data, size_t len);
/* A short bulk string; see reply_bytes. */
void reply_bulk(struct reply *r, const void *bytes, size_t n);

/* Sends items. True when none is left. */
bool reply_pump(struct reply *r, struct memory *memory);
/* Moves what is left out of the shared array. False: no memory; the reply can't be finished. */
bool reply_keep(struct reply *r, struct memory *memory, const struct reply_item *shared);
/* Drops what is left. */
void reply_abandon(struct reply *r, struct memory *memory, const struct reply_item *shared);

static inline bool reply_pending(const struct reply *r) {
  return r->count > 0;
}

#endif
