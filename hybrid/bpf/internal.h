/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the loader share: the handle, the error sentence, the object.
 */
#ifndef HYBRID_BPF_INTERNAL_H
#define HYBRID_BPF_INTERNAL_H

#include "bpf/layout.h"
#include "bpf/steer.h"

#include <assert.h>
#include <limits.h>
#include <stdbool.h>

struct bpf_object;

/* The maps, in the order of hy_steer.map_fds; X(symbol, name in the object and of the pin). */
#define STEER_MAPS(X)                                                                                        \
  X(META, "meta")                                                                                            \
  X(GENERATIONS, "generations")                                                                              \
  X(COUNTERS, "counters")                                                                                    \
  X(XSKS, "xsks")                                                                                            \
  X(PORTS, "ports")                                                                                          \
  X(LEASES, "leases")                                                                                        \
  X(STATE, "state")

enum steer_map {
#define STEER_MAP_ENUM(symbol, name) STEER_MAP_##symbol,
  STEER_MAPS(STEER_MAP_ENUM)
#undef STEER_MAP_ENUM
      STEER_MAP_COUNT
};

/* Of layout 1.0; those behind are missing in what an older build pinned, until it is upgraded. */
enum { STEER_MAPS_FIRST = STEER_MAP_XSKS + 1 };

extern const char *const steer_map_names[STEER_MAP_COUNT];

/* Every descriptor is the handle's own, or -1. */
struct hy_steer {
  int link_fd;
  int program_fd; /* the one that runs, by the link's word where there is a link */
  int queues_fd;
  int return_fd;  /* -1 also where an older build pinned what is there */
  bool fragments; /* program_fd was loaded to take frames larger than a buffer */
  int map_fds[STEER_MAP_COUNT];
  struct steer_meta meta;
  char directory[PATH_MAX]; /* empty: not pinned */
};

/* ---- error.c ------------------------------------------------------------ */

/* Writes the sentence, where error isn't NULL, and returns status, so that it can be returned. */
int steer_fail(hy_steer_error *error, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/*
 * Keeps what libbpf says on this thread, and off stderr, from _begin to _end.
 * The first complaint is kept: those that follow are its consequences.
 */
struct steer_capture {
  char text[256];
  struct steer_capture *outer;
};
void steer_capture_begin(struct steer_capture *capture);
void steer_capture_end(struct steer_capture *capture);

/* ---- object.c ----------------------------------------------------------- */

void steer_init(hy_steer *steer);
/*
 * Loads the programs into steer. Maps that steer has already are used in place
 * of new ones; program descriptors it has are replaced. fragments: as a program that
 * takes frames larger than a buffer (Linux 5.18).
 */
int steer_load_object(hy_steer *steer, const char *path, bool fragments, hy_steer_error *error);
/*
 * The end of what makes a hy_steer that is not attached: *out, ready for rules; or where err is an error, or
 * this fails, nothing, and steer is closed.
 */
int steer_finish(hy_steer *steer, int err, hy_steer **out, hy_steer_error *error);
/* With fragments, or without them where the kernel has none. */
int steer_load_best(hy_steer *steer, const char *path, hy_steer_error *error);
void steer_fini(hy_steer *steer);
void steer_fd_close(int *fd);

/* ---- pin.c -------------------------------------------------------------- */

/* Locks the parent of directory until the descriptor is closed. -ENOENT: there is none. */
int steer_lock(const char *directory, hy_steer_error *error);
/* Makes "new-..." beside directory; its path goes to out (PATH_MAX bytes). Removes leftovers of others. */
int steer_staging_make(const char *directory, char *out, hy_steer_error *error);
int steer_pin(int fd, const char *directory, const char *name, hy_steer_error *error);
/* No error where there is no such pin. */
int steer_unpin(const char *directory, const char *name);
int steer_pin_open(const char *directory, const char *name, int *fd);
/* As hy_steer_remove, by whoever holds the lock. */
int steer_remove_locked(const char *directory, hy_steer_error *error);

/* ---- rules.c ------------------------------------------------------------ */

/* Generation 1: no rules. */
int steer_rules_init(hy_steer *steer, hy_steer_error *error);

/* ---- inspect.c ---------------------------------------------------------- */

/* "'name' (id 7), attached natively by link 3": for sentences. */
void steer_xdp_describe(const hy_steer_xdp *xdp, char *out, size_t capacity);
int steer_tag(int program_fd, uint8_t tag[HY_STEER_TAG_BYTES], uint32_t *id);

#endif
