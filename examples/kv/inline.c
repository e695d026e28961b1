/* SPDX-License-Identifier: Apache-2.0 */
/* Splitting of inline commands; inline.h has the grammar. */
#include "inline.h"

static bool is_blank(uint8_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/* What ends an unquoted word; of the blanks, \v and \f don't. */
static bool is_word_end(uint8_t c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int hex_digit(uint8_t c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that a backslash sequence stands for; *at is behind the backslash. */
static uint8_t unescape(const uint8_t **at, const uint8_t *end) {
  const uint8_t *c = *at;
  if (*c == 'x' && end - c >= 3 && hex_digit(c[1]) >= 0 && hex_digit(c[2]) >= 0) {
    *at += 3;
    return (uint8_t)(hex_digit(c[1]) << 4 | hex_digit(c[2]));
  }
  *at += 1;
  switch (*c) {
  case 'n':
    return '\n';
  case 'r':
    return '\r';
  case 't':
    return '\t';
  case 'b':
    return '\b';
  case 'a':
    return '\a';
  default:
    return *c;
  }
}

/* Reads a quoted part; *at is behind the opening quote. False: it has no end, or one within a word. */
static bool quoted_read(const uint8_t **at, const uint8_t *end, uint8_t quote, uint8_t **out) {
  const uint8_t *c = *at;
  while (c < end && *c != quote) {
    if (*c == '\\' && c + 1 < end && (quote == '"' || c[1] == '\'')) {
      c++;
      if (quote == '"')
        *(*out)++ = unescape(&c, end);
      else
        *(*out)++ = *c++;
    } else {
      *(*out)++ = *c++;
    }
  }
  if (c == end || (c + 1 < end && !is_blank(c[1])))
    return false;
  *at = c + 1;
  return true;
}

int inline_split(const uint8_t *line, size_t len, struct resp_arg *argv, uint8_t *text) {
  const uint8_t *at = line, *end = line + len;
  uint8_t *out = text;
  int argc = 0;
  for (;;) {
    while (at < end && is_blank(*at))
      at++;
    if (at == end)
      return argc;
    const uint8_t *word = out;
    bool ended = false;
    while (!ended && at < end && !is_word_end(*at)) {
      uint8_t c = *at++;
      if (c == '"' || c == '\'') {
        if (!quoted_read(&at, end, c, &out))
          return -1;
        ended = true;
      } else {
        *out++ = c;
      }
    }
    argv[argc++] = (struct resp_arg){.data = word, .len = (uint32_t)(out - word)};
  }
}
