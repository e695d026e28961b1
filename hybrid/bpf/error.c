/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentences. libbpf reports through one process-wide callback; ours keeps what is
 * said on a thread that has asked for it, and drops the rest.
 */
#include "bpf/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <bpf/libbpf.h>

/* The callback carries no context of ours, so who listens is known by thread. */
static _Thread_local struct steer_capture *listening;

int steer_fail(hy_steer_error *error, int status, const char *format, ...) {
  if (!error)
    return status;
  va_list args;
  va_start(args, format);
  vsnprintf(error->text, sizeof(error->text), format, args);
  va_end(args);
  return status;
}

static __attribute__((format(printf, 2, 0))) int hear(enum libbpf_print_level level, const char *format,
                                                      va_list args) {
  struct steer_capture *capture = listening;
  if (!capture || level != LIBBPF_WARN || capture->text[0])
    return 0;
  vsnprintf(capture->text, sizeof(capture->text), format, args);
  size_t length = strcspn(capture->text, "\n");
  capture->text[length] = '\0';
  if (strncmp(capture->text, "libbpf: ", 8) == 0)
    memmove(capture->text, capture->text + 8, length - 7);
  return 0;
}

void steer_capture_begin(struct steer_capture *capture) {
  capture->text[0] = '\0';
  capture->outer = listening;
  listening = capture;
  /* Set every time: another user of libbpf in this process may have set its own meanwhile. */
  libbpf_set_print(hear);
}

void steer_capture_end(struct steer_capture *capture) {
  listening = capture->outer;
}
