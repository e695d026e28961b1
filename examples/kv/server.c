/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: accepts, moves connections from state to state (connection.h),
 * sweeps expired keys. Everything it will ever use is taken at start.
 */
#include "server.h"
#include "connection.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

enum {
  EVENTS = 64,
  ACCEPTS = 16,
  BACKLOG = 1024,
  SWEEP_BUCKETS = 4096,
  LINGER_BYTES_MAX = 4 << 20,
};
static const uint64_t MS = 1000 * 1000;
static const uint64_t SWEEP_EVERY_NS = 100 * MS;
static const uint64_t LINGER_NS = 1000 * MS;
static const uint64_t STARVED_NS = 100 * MS;

struct server {
  hy_shard *shard;
  struct connection_list free, draining, starved, lingering;
  int64_t wall_offset_ms; /* expiry is told in wall time, and measured in the shard's */
  uint64_t swept_ns;
  struct kv kv;
  struct connection connections[]; /* config.max_clients */
};

static size_t server_bytes(uint32_t clients) {
  return sizeof(struct server) + clients * sizeof(struct connection);
}

/*
 * A client may hold 32 KiB unread and 32 KiB unacknowledged, and 8 pieces each of
 * input and of replies being worked on. The arena is made so that even if every
 * client does, frames are left to receive into: nobody can stop the others by not
 * reading. (The price is a window of 32 KiB: 320 MB/s per connection at 100 us.)
 */
void server_shard_config(const struct server_options *options, hy_config *config) {
  enum { WINDOW_BYTES = 32 * 1024, MIN_CLIENTS = 256, DEVICE_FRAMES = 16384 };
  hy_config_default(config);
  uint32_t clients = options->kv.max_clients < MIN_CLIENTS ? MIN_CLIENTS : options->kv.max_clients;
  uint32_t window_frames = WINDOW_BYTES / 1400 + 1;
  config->rcvbuf_bytes = config->sndbuf_bytes = WINDOW_BYTES;
  config->app_frames_max = clients * 2 * HY_SGA_SEGS;
  config->frames = config->app_frames_max + clients * 2 * window_frames + DEVICE_FRAMES;
  config->sockets = config->connections = 4 * clients; /* those in TIME_WAIT too */
  config->tokens = 4 * clients + 64;
  if (options->spin_ns > 0)
    config->spin_ns = options->spin_ns;
}

static struct connection_list *list_of(struct server *s, enum connection_state state) {
  switch (state) {
  case CONNECTION_FREE:
    return &s->free;
  case CONNECTION_DRAINING:
    return &s->draining;
  case CONNECTION_STARVED:
    return &s->starved;
  case CONNECTION_LINGERING:
    return &s->lingering;
  default:
    return NULL;
  }
}

static void state_set(struct server *s, struct connection *c, enum connection_state state) {
  if (c->state == state)
    return;
  struct connection_list *from = list_of(s, c->state), *to = list_of(s, state);
  if (from != NULL)
    connection_list_remove(from, c);
  c->state = (uint8_t)state;
  c->since_ns = hy_now(s->shard);
  if (to != NULL)
    connection_list_add(to, c);
}

static void connection_end(struct server *s, struct connection *c, bool reset) {
  state_set(s, c, CONNECTION_FREE);
  connection_close(&s->kv, c, reset);
}

/* One step of a connection that has input, or room again. */
static void connection_go_on(struct server *s, struct connection *c) {
  hy_qt qt;
  int rc = 0;
  switch (connection_run(&s->kv, c)) {
  case NEXT_POP:
    state_set(s, c, CONNECTION_READING);
    rc = hy_pop(s->shard, c->qd, &qt);
    break;
  case NEXT_DRAIN:
    state_set(s, c, CONNECTION_DRAINING);
    rc = hy_drain(s->shard, c->qd, &qt);
    break;
  case NEXT_RETRY:
    state_set(s, c, CONNECTION_STARVED);
    break;
  case NEXT_FINISH:
    state_set(s, c, CONNECTION_LINGERING);
    rc = hy_shutdown(s->shard, c->qd);
    if (rc == 0)
      rc = hy_pop(s->shard, c->qd, &qt);
    break;
  case NEXT_RESET:
    rc = -ECONNRESET;
    break;
  }
  if (rc < 0)
    connection_end(s, c, true);
}

/* ---- events --------------------------------------------------------------- */

/* Tells a client that there is no place for it, as far as one push can. */
static void refuse(struct server *s, hy_qd qd) {
  static const char sentence[] = "-ERR max number of clients reached\r\n";
  hy_sga sga;
  s->kv.rejected++;
  if (hy_sga_alloc(s->shard, sizeof sentence - 1, &sga) == 0) {
    __builtin_memcpy(sga.segs[0].addr, sentence, sizeof sentence - 1);
    if (hy_push(s->shard, qd, &sga, NULL) < 0)
      hy_sga_free(s->shard, &sga);
  }
  hy_close(s->shard, qd);
}

static void on_accept(struct server *s, const hy_event *event) {
  hy_qt qt;
  hy_accept(s->shard, event->qd, &qt);
  if (event->status < 0)
    return;
  struct connection *c = s->free.first;
  if (c == NULL) {
    refuse(s, event->accepted);
    return;
  }
  connection_list_remove(&s->free, c);
  connection_open(&s->kv, c, s->shard, event->accepted);
  c->state = CONNECTION_READING;
  hy_set_user(s->shard, c->qd, c);
  if (hy_pop(s->shard, c->qd, &qt) < 0)
    connection_end(s, c, true);
}

/* A client that was answered for the last time: whatever it still says is dropped, within bounds. */
static void on_lingering(struct server *s, struct connection *c, hy_event *event) {
  hy_qt qt;
  bool over = event->sga.nsegs == 0;
  c->lingered_bytes += (uint32_t)hy_sga_bytes(&event->sga);
  hy_sga_free(s->shard, &event->sga);
  if (over || c->lingered_bytes > LINGER_BYTES_MAX || hy_pop(s->shard, c->qd, &qt) < 0)
    connection_end(s, c, !over);
}

static void on_event(struct server *s, hy_event *event) {
  struct connection *c = event->user;
  if (event->op == HY_OP_ACCEPT) {
    on_accept(s, event);
  } else if (c->qd != event->qd || c->state == CONNECTION_FREE) {
    hy_sga_free(s->shard, &event->sga); /* of a connection that has ended meanwhile */
  } else if (event->status < 0) {
    connection_end(s, c, true);
  } else if (c->state == CONNECTION_LINGERING) {
    on_lingering(s, c, event);
  } else if (event->op == HY_OP_POP && event->sga.nsegs == 0) {
    connection_end(s, c, false); /* the client has closed; what was replied is still delivered */
  } else {
    if (event->op == HY_OP_POP)
      c->in = event->sga;
    connection_go_on(s, c);
  }
}

/* ---- what time brings ------------------------------------------------------ */

/*
 * Connections without frames try again. If that has not helped for a while, the
 * frames are held by clients that don't read: the one that has not for longest
 * is closed, so that the others are served.
 */
static void starved_retry(struct server *s, uint64_t now_ns) {
  struct connection *oldest = s->starved.first, *slow = s->draining.first;
  if (oldest == NULL)
    return;
  if (slow != NULL && now_ns - oldest->since_ns > STARVED_NS && now_ns - slow->since_ns > STARVED_NS) {
    s->kv.evicted_clients++;
    connection_end(s, slow, true);
  }
  for (struct connection *c = s->starved.first, *next; c != NULL; c = next) {
    next = c->next;
    connection_go_on(s, c);
  }
}

static void linger_expire(struct server *s, uint64_t now_ns) {
  while (s->lingering.first != NULL && now_ns - s->lingering.first->since_ns > LINGER_NS)
    connection_end(s, s->lingering.first, false);
}

static void time_passes(struct server *s) {
  uint64_t now_ns = hy_now(s->shard);
  s->kv.now_ms = s->wall_offset_ms + (int64_t)(now_ns / MS);
  starved_retry(s, now_ns);
  linger_expire(s, now_ns);
  if (now_ns - s->swept_ns >= SWEEP_EVERY_NS) {
    s->swept_ns = now_ns;
    store_sweep(&s->kv.store, s->kv.now_ms, SWEEP_BUCKETS);
  }
}

static int serve(struct server *s, const volatile sig_atomic_t *stop) {
  hy_event events[EVENTS];
  while (!*stop) {
    /* A signal ends a sleep, but one that comes just before it does not: so never sleep for long. */
    int64_t timeout_ns = (int64_t)(s->starved.first != NULL ? MS : 100 * MS);
    int n = hy_wait_any(s->shard, events, EVENTS, timeout_ns);
    if (n < 0 && n != -EINTR)
      return n;
    time_passes(s);
    for (int i = 0; i < n; i++)
      on_event(s, &events[i]);
  }
  return 0;
}

/* ---- start ----------------------------------------------------------------- */

static int listen_on(hy_shard *shard, const hy_addr *addr) {
  hy_qd qd;
  hy_qt qt;
  int rc = hy_socket(shard, HY_STREAM, &qd);
  if (rc == 0)
    rc = hy_bind(shard, qd, addr);
  if (rc == 0)
    rc = hy_listen(shard, qd, BACKLOG);
  for (int i = 0; rc == 0 && i < ACCEPTS; i++)
    rc = hy_accept(shard, qd, &qt);
  return rc;
}

static int listen_everywhere(hy_shard *shard, const struct server_options *options) {
  hy_addr any = {.port = options->kv.port}; /* every local address, IPv4 and IPv6 */
  int rc = options->nbinds == 0 ? listen_on(shard, &any) : 0;
  for (unsigned i = 0; rc == 0 && i < options->nbinds; i++)
    rc = listen_on(shard, &options->binds[i]);
  return rc;
}

static int64_t wall_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / (int64_t)MS;
}

int server_run(hy_shard *shard, const struct server_options *options, const volatile sig_atomic_t *stop) {
  size_t bytes = server_bytes(options->kv.max_clients);
  struct server *s = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED)
    return -ENOMEM;
  s->shard = shard;
  hy_poll(shard); /* sets the shard's time */
  s->swept_ns = hy_now(shard);
  s->wall_offset_ms = wall_ms() - (int64_t)(hy_now(shard) / MS);
  for (uint32_t i = 0; i < options->kv.max_clients; i++)
    connection_list_add(&s->free, &s->connections[i]);
  int rc = kv_init(&s->kv, &options->kv, wall_ms());
  if (rc < 0)
    goto unmap;
  rc = listen_everywhere(shard, options);
  if (rc == 0)
    rc = hy_shard_ready(shard);
  if (rc == 0) {
    printf("hybrid-kv: listening on port %u\n", options->kv.port);
    fflush(stdout);
    rc = serve(s, stop);
  }
  kv_fini(&s->kv);
unmap:
  munmap(s, bytes);
  return rc;
}
