/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the scenario programs share: the pair va-vb of the namespace that they were
 * started in, and how a process loses its privileges.
 */
#ifndef HYBRID_TESTS_SCENARIO_H
#define HYBRID_TESTS_SCENARIO_H

#include "afxdp/afxdp.h"
#include "bench/redirect.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUEUES = 4, PORT = 7007, HEADERS = 42 };

#define CHECK(condition)                                                                                     \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      fprintf(stderr, "%s:%d: %s does not hold (errno %d)\n", __func__, __LINE__, #condition, errno);        \
      exit(1);                                                                                               \
    }                                                                                                        \
  } while (0)

/* One end of the wire: its steering, and the arena its queues share. */
struct end {
  const char *ifname;
  uint32_t ifindex;
  struct redirect redirect;
  struct arena arena;
};

extern bool generic;       /* the attach mode of this run */
extern struct end ends[2]; /* va, vb */

/* A frame's bytes follow from its number: its headers, which redirect.h matches, the number, then these. */
uint8_t byte_of(uint32_t number, uint32_t at);
void datagram_write(uint8_t *bytes, uint32_t number, uint32_t len);

bool before(uint64_t deadline_ns);
uint64_t in_seconds(unsigned seconds);

struct scenario {
  const char *name;
  void (*run)(void);
};
/* PROGRAM --list, or PROGRAM SCENARIO native|generic. */
int scenario_main(int argc, char **argv, const struct scenario *scenarios, size_t count);

/* Attaches both ends and makes their arenas. */
void wire_up_frames(uint32_t frames);
hy_afxdp_config config_of(const struct end *end, uint32_t queue);
struct hy_device *queue_open(struct end *end, uint32_t queue);
void queue_close(struct hy_device *dev);
void nothing_leaked(void);
void interface_set(const char *ifname, bool up);
/* Of va and vb. */
void mtu_set(int mtu_bytes);
/* Polls until `count` frames have come, which are then the caller's. */
void receive(struct hy_device *dev, uint32_t *frames, uint32_t count);

/* Becomes an unknown user, without a capability and with 8 MiB of memory that it may lock. */
void privileges_drop(void);

#endif
