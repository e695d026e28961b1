/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of replies; reply.h explains room and items. */
#include "reply.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void reply_init(struct reply *r, const struct reply_sink *sink) {
  *r = (struct reply){.sink = sink};
}

static size_t room(const struct reply *r) {
  return (size_t)(r->end - r->at) + r->beyond;
}

bool reply_ready(struct reply *r) {
  return room(r) >= REPLY_ROOM || r->sink->more(r, REPLY_ROOM);
}

/* As many of the bytes as there is room for. */
static size_t write_some(struct reply *r, const uint8_t *bytes, size_t n) {
  size_t done = 0;
  while (done < n) {
    if (r->at == r->end) {
      if (r->beyond == 0)
        break;
      r->sink->next(r);
      continue;
    }
    size_t part = (size_t)(r->end - r->at);
    if (part > n - done)
      part = n - done;
    memcpy(r->at, bytes + done, part);
    r->at += part;
    done += part;
  }
  return done;
}

void reply_bytes(struct reply *r, const void *bytes, size_t n) {
  assert(r->count == 0 && room(r) >= n);
  if (__builtin_expect((size_t)(r->end - r->at) >= n, 1)) {
    memcpy(r->at, bytes, n);
    r->at += n;
  } else {
    write_some(r, bytes, n);
  }
}

/* "<kind>123\r\n" at the end of buffer; where it starts. */
static uint8_t *number(uint8_t buffer[24], uint8_t kind, int64_t value) {
  uint8_t *at = buffer + 24;
  uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  *--at = '\n';
  *--at = '\r';
  do {
    *--at = (uint8_t)('0' + left % 10);
    left /= 10;
  } while (left > 0);
  if (value < 0)
    *--at = '-';
  *--at = kind;
  return at;
}

static void number_write(struct reply *r, uint8_t kind, int64_t value) {
  uint8_t buffer[24];
  const uint8_t *start = number(buffer, kind, value);
  reply_bytes(r, start, (size_t)(buffer + sizeof buffer - start));
}

void reply_integer(struct reply *r, int64_t value) {
  number_write(r, ':', value);
}

void reply_array(struct reply *r, size_t count) {
  number_write(r, '*', (int64_t)count);
}

void reply_bulk(struct reply *r, const void *bytes, size_t n) {
  number_write(r, '$', (int64_t)n);
  reply_bytes(r, bytes, n);
  reply_bytes(r, "\r\n", 2);
}

void reply_error(struct reply *r, const char *format, ...) {
  char text[REPLY_ROOM - 8];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  assert(n >= 0 && n < (int)sizeof text);
  for (int i = 0; i < n; i++)
    if (text[i] == '\r' || text[i] == '\n')
      text[i] = ' ';
  if (text[0] != '-')
    reply_bytes(r, "-ERR ", 5);
  reply_bytes(r, text, (size_t)n);
  reply_bytes(r, "\r\n", 2);
}

/* ---- what may have to wait ---------------------------------------------- */

static void item_add(struct reply *r, struct pin *pin, const uint8_t *data, size_t len, uint32_t bulk) {
  assert(r->count < REPLY_ITEMS_MAX);
  if (pin != NULL)
    pin->refs++;
  r->items[r->count++] = (struct reply_item){.pin = pin, .data = data, .len = (uint32_t)len, .bulk = bulk};
}

void reply_constant(struct reply *r, const char *bytes, size_t n) {
  if (r->count == 0 && room(r) >= n)
    reply_bytes(r, bytes, n);
  else
    item_add(r, NULL, (const uint8_t *)bytes, n, 0);
}

void reply_value(struct reply *r, struct pin *pin, const uint8_t *data, size_t len) {
  if (r->count == 0 && room(r) >= len + 26)
    reply_bulk(r, data, len);
  else
    item_add(r, pin, data, len, 1);
}

void reply_raw(struct reply *r, struct pin *pin, const uint8_t *data, size_t len) {
  if (r->count == 0 && room(r) >= len)
    reply_bytes(r, data, len);
  else
    item_add(r, pin, data, len, 0);
}

/* Sends [start, start + n) of an item's bytes as far as they have not been sent; `from` is where they begin.
 */
static bool part_pump(struct reply *r, size_t *from, const uint8_t *part, size_t n, size_t left_after) {
  while (r->sent < *from + n) {
    size_t done = r->sent - *from;
    r->sent += write_some(r, part + done, n - done);
    if (r->sent < *from + n && !r->sink->more(r, *from + n - r->sent + left_after))
      return false;
  }
  *from += n;
  return true;
}

static bool item_pump(struct reply *r, const struct reply_item *item) {
  size_t from = 0;
  if (!item->bulk)
    return part_pump(r, &from, item->data, item->len, 0);
  uint8_t buffer[24];
  const uint8_t *header = number(buffer, '$', item->len);
  return part_pump(r, &from, header, (size_t)(buffer + sizeof buffer - header), item->len + 2) &&
         part_pump(r, &from, item->data, item->len, 2) && part_pump(r, &from, (const uint8_t *)"\r\n", 2, 0);
}

bool reply_pump(struct reply *r, struct memory *memory) {
  for (; r->next < r->count; r->next++, r->sent = 0) {
    const struct reply_item *item = &r->items[r->next];
    if (!item_pump(r, item))
      return false;
    if (item->pin != NULL)
      pin_drop(memory, item->pin);
  }
  return true;
}

bool reply_keep(struct reply *r, struct memory *memory, const struct reply_item *shared) {
  if (r->items != shared)
    return true;
  uint32_t left = r->count - r->next;
  struct reply_item *items = memory_alloc(memory, left * sizeof *items, MEMORY_TRANSIT);
  if (items == NULL)
    return false;
  memcpy(items, r->items + r->next, left * sizeof *items);
  r->items = items;
  r->count = left;
  r->next = 0;
  return true;
}

void reply_abandon(struct reply *r, struct memory *memory, const struct reply_item *shared) {
  for (; r->next < r->count; r->next++)
    if (r->items[r->next].pin != NULL)
      pin_drop(memory, r->items[r->next].pin);
  if (r->items != NULL && r->items != shared)
    memory_free(memory, r->items);
  r->items = NULL;
  r->count = r->next = 0;
  r->sent = 0;
}
