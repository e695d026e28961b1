/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of resp.h. Every state can be left after any byte and taken up again. */
#include "resp.h"

#include <assert.h>
#include <string.h>

#include "inline.h"

enum resp_state {
  STATE_START = 0, /* between commands */
  STATE_MULTIBULK, /* in "*3\r\n" */
  STATE_BULK,      /* in "$5\r\n" */
  STATE_BODY,      /* in the bytes of a bulk */
  STATE_SKIP,      /* in the two bytes after them */
  STATE_INLINE,    /* in a plain line */
  STATE_FAILED,
};

enum { PARTIAL_MIN = 1024 }; /* first block for a body or a line that a piece's end cuts */

bool resp_integer(const uint8_t *text, size_t len, int64_t *out) {
  size_t i = 0;
  bool negative = len > 0 && text[0] == '-';
  if (negative)
    i++;
  if (i == len || len > 20 || text[i] < '0' || text[i] > '9')
    return false;
  if (text[i] == '0') {
    *out = 0;
    return len == 1;
  }
  uint64_t value = 0;
  for (; i < len; i++) {
    unsigned digit = (unsigned)text[i] - '0';
    if (digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
        __builtin_add_overflow(value, digit, &value))
      return false;
  }
  if (value > (uint64_t)INT64_MAX + negative)
    return false;
  *out = negative ? (int64_t)(0 - value) : (int64_t)value;
  return true;
}

void resp_init(struct resp *p) {
  *p = (struct resp){0};
}

/* ---- keeping what a piece's end leaves unfinished ------------------------ */

static void args_free(struct resp *p, struct resp_scratch *scratch) {
  assert(p->kept == 0 || p->argv != NULL);
  for (uint32_t i = 0; i < p->kept; i++)
    if (p->argv[i].owned)
      memory_free(scratch->memory, (void *)(uintptr_t)p->argv[i].data);
  if (p->argv != NULL && p->argv != scratch->argv)
    memory_free(scratch->memory, p->argv);
  p->argv = NULL;
  p->argc = p->kept = p->argv_room = 0;
}

static void partial_free(struct resp *p, struct resp_scratch *scratch) {
  assert(scratch != NULL);
  if (p->partial != NULL)
    memory_free(scratch->memory, p->partial);
  p->partial = NULL;
  p->partial_len = p->partial_room = 0;
}

void resp_release(struct resp *p, struct resp_scratch *scratch) {
  if (p->argv == NULL && p->partial == NULL)
    return;
  args_free(p, scratch);
  partial_free(p, scratch);
}

static void command_drop(struct resp *p, struct resp_scratch *scratch) {
  resp_release(p, scratch);
  p->dropped = 1;
}

/* Moves argv to a block with room for `room` arguments. */
static bool argv_move(struct resp *p, struct resp_scratch *scratch, uint32_t room) {
  struct resp_arg *argv = memory_alloc(scratch->memory, room * sizeof *argv, MEMORY_TRANSIT);
  if (argv == NULL)
    return false;
  memcpy(argv, p->argv, p->argc * sizeof *argv);
  if (p->argv != scratch->argv)
    memory_free(scratch->memory, p->argv);
  p->argv = argv;
  p->argv_room = room;
  return true;
}

/* The piece is going away: whatever argv still points to in it becomes ours. */
static void args_keep(struct resp *p, struct resp_scratch *scratch) {
  if (p->argc == 0) {
    if (p->argv == scratch->argv)
      p->argv = NULL;
    return;
  }
  if (p->argv == scratch->argv && !argv_move(p, scratch, p->argc < 4 ? 8 : 2 * p->argc)) {
    command_drop(p, scratch);
    return;
  }
  for (; p->kept < p->argc; p->kept++) {
    struct resp_arg *arg = &p->argv[p->kept];
    if (arg->owned)
      continue;
    uint8_t *block = memory_alloc(scratch->memory, arg->len, MEMORY_TRANSIT);
    if (block == NULL) {
      command_drop(p, scratch);
      return;
    }
    memcpy(block, arg->data, arg->len);
    arg->data = block;
    arg->owned = 1;
  }
}

static void arg_add(struct resp *p, struct resp_scratch *scratch, const uint8_t *data, uint32_t owned) {
  if (p->argv == NULL) {
    p->argv = scratch->argv;
    p->argv_room = RESP_ARGS_MAX;
  }
  if (p->argc == p->argv_room && !argv_move(p, scratch, 2 * p->argv_room)) {
    if (owned)
      memory_free(scratch->memory, (void *)(uintptr_t)data);
    command_drop(p, scratch);
    return;
  }
  if (owned) { /* it began in an earlier piece, as did everything before it */
    assert(p->kept == p->argc);
    p->kept++;
  }
  p->argv[p->argc++] = (struct resp_arg){.data = data, .len = p->body_len, .owned = owned};
}

/* Appends to the block of an unfinished body or line, whose final length is at most `most`. */
static bool partial_add(struct resp *p, struct resp_scratch *scratch, const uint8_t *data, size_t len,
                        uint32_t most) {
  uint32_t need = p->partial_len + (uint32_t)len;
  assert(need <= most);
  if (p->partial == NULL || need > p->partial_room) {
    uint32_t room = p->partial_room == 0 ? PARTIAL_MIN : 2 * p->partial_room;
    while (room < need)
      room *= 2;
    if (room > most)
      room = most;
    uint8_t *block = memory_alloc(scratch->memory, room, MEMORY_TRANSIT);
    if (block == NULL)
      return false;
    if (p->partial != NULL) {
      memcpy(block, p->partial, p->partial_len);
      memory_free(scratch->memory, p->partial);
    }
    p->partial = block;
    p->partial_room = room;
  }
  memcpy(p->partial + p->partial_len, data, len);
  p->partial_len = need;
  return true;
}

/* ---- the parts of a request ---------------------------------------------- */

static enum resp_status fail(struct resp *p, enum resp_error error) {
  p->state = STATE_FAILED;
  p->error = (uint8_t)error;
  return RESP_ERROR;
}

/*
 * A header line: anything up to '\r', and one byte more whatever it is (as Redis
 * reads it). False: its end has not arrived, and the piece is used up.
 * *line and *len are the line without its end.
 */
static bool line_read(struct resp *p, const uint8_t **at, const uint8_t *end, const uint8_t **line,
                      uint32_t *len) {
  const uint8_t *start = *at;
  if (p->line_len == 0 && p->skip == 0) { /* the usual case: all of it is in this piece */
    const uint8_t *stop = end - start > RESP_NUMBER_MAX ? start + RESP_NUMBER_MAX : end;
    for (const uint8_t *c = start; c < stop; c++) {
      if (*c == '\r') {
        if (c + 1 == end)
          break;
        *line = start;
        *len = (uint32_t)(c - start);
        *at = c + 2;
        return true;
      }
    }
  }
  /* Otherwise by the byte; what can't be part of a number is only counted. */
  while (*at < end) {
    uint8_t c = *(*at)++;
    if (p->skip > 0) {
      p->skip = 0;
      *line = p->line;
      *len = p->line_len;
      p->line_len = 0;
      return true;
    }
    if (c == '\r') {
      p->skip = 1;
      continue;
    }
    if (p->line_len < RESP_NUMBER_MAX)
      p->line[p->line_len] = c;
    if (++p->line_len > RESP_LINE_MAX)
      return false;
  }
  return false;
}

static bool line_number(const uint8_t *line, uint32_t len, int64_t *number) {
  return len >= 1 && len <= RESP_NUMBER_MAX && resp_integer(line + 1, len - 1, number);
}

/*
 * The usual header, "*3\r\n" or "$16\r\n" with a plain number that is all in this
 * piece, read at once. False: nothing is taken, and line_read() must see to it.
 */
static inline bool header_fast(const struct resp *p, const uint8_t **at, const uint8_t *end, uint8_t kind,
                               int64_t *number) {
  enum { DIGITS_MAX = 6 };
  const uint8_t *c = *at;
  if (end - c < DIGITS_MAX + 3 || p->line_len > 0 || p->skip > 0 || *c++ != kind || *c == '0')
    return false;
  uint32_t value = 0;
  const uint8_t *first = c;
  for (; c < first + DIGITS_MAX && (uint8_t)(*c - '0') <= 9; c++)
    value = value * 10 + (uint32_t)(*c - '0');
  if (c == first || *c != '\r')
    return false;
  *number = value;
  *at = c + 2;
  return true;
}

/* True when the header was read; an error or the piece's end otherwise. */
static bool multibulk_read(struct resp *p, const uint8_t **at, const uint8_t *end, enum resp_status *status) {
  const uint8_t *line;
  uint32_t len;
  int64_t count;
  *status = RESP_MORE;
  bool plain = header_fast(p, at, end, '*', &count);
  if (!plain && !line_read(p, at, end, &line, &len)) {
    if (p->line_len > RESP_LINE_MAX)
      *status = fail(p, RESP_BIG_MULTIBULK);
    return false;
  }
  if ((!plain && !line_number(line, len, &count)) || count > RESP_ARGS_MAX) {
    *status = fail(p, RESP_BAD_MULTIBULK);
    return false;
  }
  p->args_left = count > 0 ? (uint32_t)count : 0;
  p->state = count > 0 ? STATE_BULK : STATE_START; /* an empty array is no command and gets no answer */
  return true;
}

static bool bulk_read(struct resp *p, const uint8_t **at, const uint8_t *end, enum resp_status *status) {
  const uint8_t *line;
  uint32_t len;
  int64_t count;
  *status = RESP_MORE;
  bool plain = header_fast(p, at, end, '$', &count);
  if (!plain && !line_read(p, at, end, &line, &len)) {
    if (p->line_len > RESP_LINE_MAX)
      *status = fail(p, RESP_BIG_BULK);
    return false;
  }
  if (!plain && (len == 0 || line[0] != '$')) {
    p->got = len == 0 ? '\r' : line[0];
    *status = fail(p, RESP_NOT_BULK);
    return false;
  }
  if ((!plain && !line_number(line, len, &count)) || count < 0 || count > RESP_BULK_MAX) {
    *status = fail(p, RESP_BAD_BULK);
    return false;
  }
  p->body_len = (uint32_t)count;
  p->partial_len = 0;
  p->state = STATE_BODY;
  return true;
}

/* The body of a bulk, in place where the piece has all of it. True when it is complete. */
static bool body_read(struct resp *p, struct resp_scratch *scratch, const uint8_t **at, const uint8_t *end) {
  uint32_t missing = p->body_len - p->partial_len;
  size_t have = (size_t)(end - *at);
  bool whole = p->partial_len == 0 && have >= missing;
  uint32_t take = have < missing ? (uint32_t)have : missing;
  if (p->dropped) {
    p->partial_len += take;
  } else if (whole) {
    arg_add(p, scratch, *at, 0);
    p->partial_len = p->body_len;
  } else if (take > 0 && !partial_add(p, scratch, *at, take, p->body_len)) {
    command_drop(p, scratch);
    p->partial_len = p->body_len - missing + take;
  }
  *at += take;
  if (take < missing)
    return false;
  if (!p->dropped && !whole) {
    uint8_t *block = p->partial;
    p->partial = NULL;
    p->partial_room = 0;
    arg_add(p, scratch, block, 1);
  }
  p->partial_len = 0;
  p->state = STATE_SKIP;
  p->skip = 2;
  return true;
}

/* A plain line. True when it is complete: p->argc says how many words it had. */
static bool inline_read(struct resp *p, struct resp_scratch *scratch, const uint8_t **at, const uint8_t *end,
                        enum resp_status *status) {
  size_t have = (size_t)(end - *at);
  const uint8_t *newline = memchr(*at, '\n', have);
  size_t take = newline != NULL ? (size_t)(newline - *at) : have;
  *status = RESP_MORE;
  if (p->line_len + take > RESP_LINE_MAX) {
    *status = fail(p, RESP_BIG_INLINE);
    return false;
  }
  const uint8_t *line = *at;
  p->line_len += (uint32_t)take;
  *at += take + (newline != NULL);
  if (newline == NULL || p->partial != NULL || p->dropped) {
    if (!p->dropped && take > 0 && !partial_add(p, scratch, line, take, RESP_LINE_MAX))
      command_drop(p, scratch);
    if (newline == NULL)
      return false;
    line = p->partial;
    if (line == NULL) /* dropped */
      line = p->line;
  }
  uint32_t len = p->dropped ? 0 : p->line_len;
  p->line_len = 0;
  p->state = STATE_START;
  if (len > 0 && line[len - 1] == '\r')
    len--;
  p->argv = scratch->argv;
  p->argv_room = RESP_ARGS_MAX;
  static_assert(RESP_ARGS_MAX > RESP_LINE_MAX / 2, "a line can't have more words");
  int words = inline_split(line, len, scratch->argv, scratch->text);
  if (words < 0) {
    *status = fail(p, RESP_QUOTES);
    return false;
  }
  p->argc = (uint32_t)words;
  return true;
}

static enum resp_status command_end(struct resp *p) {
  p->state = STATE_START;
  if (!p->dropped)
    return RESP_COMMAND;
  p->dropped = 0;
  return RESP_DROPPED;
}

enum resp_status resp_parse(struct resp *p, struct resp_scratch *scratch, const uint8_t *data, size_t len,
                            size_t *used) {
  const uint8_t *at = data, *end = data + len;
  enum resp_status status = RESP_MORE;
  for (;;) {
    switch (p->state) {
    case STATE_START:
      if (at == end)
        goto out;
      p->state = *at == '*' ? STATE_MULTIBULK : STATE_INLINE;
      break;
    case STATE_MULTIBULK:
      if (!multibulk_read(p, &at, end, &status))
        goto out;
      break;
    case STATE_BULK:
      if (!bulk_read(p, &at, end, &status))
        goto out;
      break;
    case STATE_BODY:
      if (!body_read(p, scratch, &at, end))
        goto out;
      break;
    case STATE_SKIP:
      for (; p->skip > 0 && at < end; p->skip--)
        at++;
      if (p->skip > 0)
        goto out;
      if (--p->args_left == 0) {
        status = command_end(p);
        goto out;
      }
      p->state = STATE_BULK;
      break;
    case STATE_INLINE:
      if (!inline_read(p, scratch, &at, end, &status))
        goto out;
      if (p->argc > 0 || p->dropped) {
        status = command_end(p);
        goto out;
      }
      resp_release(p, scratch); /* an empty line */
      break;
    default:
      status = RESP_ERROR;
      goto out;
    }
  }
out:
  if (status == RESP_MORE)
    args_keep(p, scratch);
  *used = (size_t)(at - data);
  return status;
}
