/* SPDX-License-Identifier: Apache-2.0 */
#include "dpdk/capture.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include <rte_log.h>

enum { LINE_BYTES = 160, LINES = 2 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char lines[LINES][LINE_BYTES]; /* the older first */
static char growing[LINE_BYTES];
static size_t grown;

static pthread_t captive;
static FILE *real_out, *real_err;

/* "EAL: FATAL: x" and "EAL: x" are the same twice. */
static const char *core(const char *line) {
  static const char *const prefixes[] = {"hybrid: ", "EAL: ", "ETHDEV: ", "FATAL: ", "Error "};
  for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
    if (strncmp(line, prefixes[i], strlen(prefixes[i])) == 0) {
      line += strlen(prefixes[i]);
      i = (size_t)-1;
    }
  return line;
}

/* A usage text is no explanation, and its many lines would push out the one before that is. */
static bool worth_keeping(const char *line) {
  return line[0] != '\0' && line[0] != ' ' && strncmp(line, "Usage", 5) != 0 &&
         strstr(line, "options") == NULL && strcmp(core(line), core(lines[LINES - 1])) != 0;
}

static void line_end(void) {
  growing[grown] = '\0';
  grown = 0;
  if (!worth_keeping(growing))
    return;
  memmove(lines[0], lines[1], sizeof lines[0] * (LINES - 1));
  memcpy(lines[LINES - 1], growing, sizeof growing);
}

static ssize_t log_write(void *cookie, const char *bytes, size_t n) {
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < n; i++) {
    if (bytes[i] == '\n')
      line_end();
    else if (grown < LINE_BYTES - 1) /* a sentence of ours quotes it, and programs quote that */
      growing[grown++] = (char)(bytes[i] == '"' ? '\'' : (unsigned char)bytes[i] < ' ' ? ' ' : bytes[i]);
  }
  pthread_mutex_unlock(&lock);
  return (ssize_t)n;
}

/* stdout or stderr while a job runs; the cookie is the real one. */
static ssize_t print_write(void *cookie, const char *bytes, size_t n) {
  if (pthread_equal(pthread_self(), captive))
    return log_write(NULL, bytes, n);
  FILE *real = cookie;
  size_t written = fwrite(bytes, 1, n, real);
  return written == n ? (ssize_t)n : -1;
}

static FILE *stream_to(cookie_write_function_t *write, void *cookie) {
  FILE *stream = fopencookie(cookie, "w", (cookie_io_functions_t){.write = write});
  if (stream != NULL)
    setvbuf(stream, NULL, _IONBF, 0); /* so that writes happen on the thread that prints */
  return stream;
}

void capture_begin(void) {
  static FILE *log, *out, *err; /* kept: another thread may be about to print into one of them */
  if (log == NULL && (log = stream_to(log_write, NULL)) != NULL)
    rte_openlog_stream(log);
  captive = pthread_self();
  real_out = stdout;
  real_err = stderr;
  if (out == NULL)
    out = stream_to(print_write, stdout);
  if (err == NULL)
    err = stream_to(print_write, stderr);
  /* glibc's printf goes by these variables. */
  if (out != NULL)
    stdout = out;
  if (err != NULL)
    stderr = err;
}

void capture_end(void) {
  stdout = real_out;
  stderr = real_err;
}

void capture_clear(void) {
  pthread_mutex_lock(&lock);
  memset(lines, 0, sizeof lines);
  grown = 0;
  pthread_mutex_unlock(&lock);
}

void capture_text(char *text, size_t size) {
  pthread_mutex_lock(&lock);
  const char *before = core(lines[0]), *last = core(lines[1]);
  if (last[0] == '\0')
    snprintf(text, size, "it said nothing");
  else if (before[0] == '\0' || strcmp(before, last) == 0)
    snprintf(text, size, "%s", last);
  else
    snprintf(text, size, "%s; %s", before, last);
  pthread_mutex_unlock(&lock);
}
