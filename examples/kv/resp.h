/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RESP2 parser: bytes in, commands out (redis.io, "Redis serialization
 * protocol specification": requests are arrays of bulk strings, or plain lines).
 *
 *     *3\r\n $3\r\n SET \r\n $1\r\n k \r\n $5\r\n hello \r\n      ->  argv = SET, k, hello
 *     \__ header __/ \_ bulk: header, body, two bytes _/
 *
 * Input comes in pieces as the network cut it, and is not copied: an argument
 * that lies within one piece is handed out where it lies. Only what a piece's end
 * leaves unfinished is kept, in blocks of the server's memory region: so a
 * connection that is between commands holds nothing but this structure.
 *
 * Bounds: a bulk of RESP_BULK_MAX bytes and a command of RESP_ARGS_MAX arguments
 * (Redis: 512 MiB and 2^31 - 1), a line of RESP_LINE_MAX bytes (as Redis).
 * Memory for a long argument is taken as its bytes arrive, not as announced.
 */
#ifndef KV_RESP_H
#define KV_RESP_H

#include "memory.h"

enum {
  RESP_BULK_MAX = 512 * 1024,
  RESP_ARGS_MAX = 64 * 1024,
  RESP_LINE_MAX = 64 * 1024,
  RESP_NUMBER_MAX = 24, /* bytes of a header line that can matter: its kind and a 64-bit number */
};

struct resp_arg {
  const uint8_t *data;
  uint32_t len;
  uint32_t owned; /* 1: data is a block of the region */
};

enum resp_status {
  RESP_MORE,    /* the piece is used up, the command isn't complete */
  RESP_COMMAND, /* argv and argc are a command, until resp_release() */
  RESP_DROPPED, /* there was no memory to hold the command: it has been skipped */
  RESP_ERROR,   /* `error` and `got` say what; nothing can be parsed from here on */
};

enum resp_error {
  RESP_BAD_MULTIBULK = 1,
  RESP_BAD_BULK,
  RESP_NOT_BULK, /* got: the byte that stood in place of '$' */
  RESP_BIG_INLINE,
  RESP_BIG_MULTIBULK,
  RESP_BIG_BULK,
  RESP_QUOTES,
};

/* What all parsers of a server use while they run, and none keeps. */
struct resp_scratch {
  struct memory *memory;
  struct resp_arg argv[RESP_ARGS_MAX];
  uint8_t text[RESP_LINE_MAX + 8]; /* arguments of an inline command, unquoted */
};

struct resp {
  struct resp_arg *argv; /* the scratch array, or a block once a piece has ended within a command */
  uint32_t argc, argv_room;
  uint32_t args_left; /* arguments of the array still to come */
  uint32_t kept;      /* argv[0..kept) outlive the piece */
  uint8_t *partial;   /* block: a body or an inline line whose end has not arrived */
  uint32_t partial_len, partial_room;
  uint32_t body_len; /* of the body being read */
  uint32_t line_len; /* bytes seen of an unfinished line */
  uint8_t state;
  uint8_t skip;    /* bytes still to be skipped after a body */
  uint8_t dropped; /* the command being read will not be kept */
  uint8_t error;   /* enum resp_error */
  uint8_t got;
  uint8_t line[RESP_NUMBER_MAX];
};

void resp_init(struct resp *p);
/*
 * Reads on from `data`; *used says how many bytes were taken. The piece must
 * stay where it is until RESP_MORE has been returned for it; argv points into it.
 */
enum resp_status resp_parse(struct resp *p, struct resp_scratch *scratch, const uint8_t *data, size_t len,
                            size_t *used);
/* Gives back what the last command held. Before the next resp_parse, and when a connection ends. */
void resp_release(struct resp *p, struct resp_scratch *scratch);

/* Strict: an optional '-', digits without a leading zero, and nothing else. */
bool resp_integer(const uint8_t *text, size_t len, int64_t *out);

#endif
