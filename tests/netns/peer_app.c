/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An application that does on a connection what it is told, for test_peers.py:
 *
 *     hybrid run -- peer-app PORT            (peer_served.c: where it has its shard from)
 *
 * It listens on PORT (TCP, and UDP, which it echoes). The first line that a client
 * sends is an order; an order on standard input opens a connection to somebody else:
 *
 *     ORDER [BYTES]\n                      from a client
 *     connect ID ADDRESS ORDER [BYTES]\n   on standard input; also: datagrams ID ADDRESS COUNT,
 *                                          resume, abort ID, stats
 *
 *     echo    gives back what comes until the peer has ended, then closes
 *     send    sends BYTES, ends, reads to the peer's end, closes
 *     leave   sends BYTES and closes at once, whatever is still queued
 *     take    reads to the peer's end, answers "CRC BYTES\n", closes
 *     half    ends at once, reads to the peer's end, closes
 *     stall   as take, but reads nothing before "resume"
 *     wait    as send, but sends nothing before "resume"; "ID waits" is told when it is ready to
 *     abort   resets the connection after having read BYTES
 *
 * How each ended is told in one line of JSON on standard output.
 */
#include "peer_app.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { CONNECTIONS = 1024, ACCEPTS = 64, EVENTS = 64, LINE = 256, DATAGRAMS = 16, DATAGRAM_MAX = 1400 };

enum order { ECHO, SEND, LEAVE, TAKE, HALF, STALL, WAIT, ABORT, NONE };
static const char *const orders[] = {"echo", "send", "leave", "take", "half", "stall", "wait", "abort"};

struct connection {
  struct connection *next_free;
  bool used, ordered, stalled, ended;
  enum order order;
  hy_qd qd;
  hy_qt last; /* the push that has to be acknowledged before we end */
  char id[24];
  char line[64];
  size_t line_len;
  uint64_t bytes; /* of the order */
  uint64_t to_send, sent, received;
  uint32_t crc_in, crc_out;
  hy_sga unsent;
};

/* Datagrams that we send and expect back, one under way at a time. */
struct volley {
  hy_qd qd;
  char id[24];
  uint64_t left, done;
};

static hy_shard *shard;
static struct connection connections[CONNECTIONS], *free_connection;
static struct volley volleys[DATAGRAMS];
static hy_qd listener, datagrams;

static void tell(const struct connection *c, int status) {
  printf("{\"id\": \"%s\", \"order\": \"%s\", \"status\": %d, \"sent\": %" PRIu64 ", \"received\": %" PRIu64
         ", \"crc_out\": %" PRIu32 ", \"crc_in\": %" PRIu32 "}\n",
         c->id, c->ordered ? orders[c->order] : "", status, c->sent, c->received, c->crc_out, c->crc_in);
}

static struct connection *connection_open(hy_qd qd, const char *id) {
  struct connection *c = free_connection;
  if (c == NULL) {
    hy_abort(shard, qd);
    return NULL;
  }
  free_connection = c->next_free;
  *c = (struct connection){.used = true, .qd = qd, .order = NONE};
  snprintf(c->id, sizeof c->id, "%s", id);
  hy_set_user(shard, qd, c);
  return c;
}

static void connection_end(struct connection *c, int status, bool abort) {
  hy_sga_free(shard, &c->unsent);
  if (abort)
    hy_abort(shard, c->qd);
  else
    hy_close(shard, c->qd);
  tell(c, status);
  c->used = false;
  c->next_free = free_connection;
  free_connection = c;
}

/* Bytes that no two places of a stream have in common. */
static void pattern(struct connection *c, const hy_sga *sga) {
  uint64_t at = c->sent;
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    uint8_t *to = sga->segs[i].addr;
    for (uint32_t j = 0; j < sga->segs[i].len_bytes; j += 4, at += 4) {
      uint32_t left = sga->segs[i].len_bytes - j, word = (uint32_t)at * 2654435761u ^ (uint32_t)(at >> 13);
      memcpy(to + j, &word, left < 4 ? left : 4);
    }
  }
}

static void checksum(uint32_t *crc, const hy_sga *sga) {
  for (uint32_t i = 0; i < sga->nsegs; i++)
    *crc = (uint32_t)crc32(*crc, sga->segs[i].addr, sga->segs[i].len_bytes);
}

static int read_on(struct connection *c) {
  hy_qt qt;
  return hy_pop(shard, c->qd, &qt);
}

/*
 * Pushes what there is to push; where the queue is full a drain tells when to go on. Returns 1 when
 * all of it is pushed, 0 when it goes on later.
 */
static int push_on(struct connection *c) {
  hy_qt qt;
  while (c->unsent.nsegs > 0 || c->sent < c->to_send) {
    int rc = 0;
    if (c->unsent.nsegs == 0) {
      uint64_t left = c->to_send - c->sent;
      size_t most = hy_sga_max(shard);
      rc = hy_sga_alloc(shard, left < most ? (size_t)left : most, &c->unsent);
      if (rc == 0)
        pattern(c, &c->unsent);
    }
    if (rc == 0) {
      size_t bytes = hy_sga_bytes(&c->unsent);
      bool last = c->to_send > 0 && c->sent + bytes == c->to_send;
      uint32_t crc = c->crc_out;
      checksum(&crc, &c->unsent);
      rc = hy_push(shard, c->qd, &c->unsent, last ? &c->last : NULL);
      if (rc == 0) {
        c->crc_out = crc;
        c->sent += bytes;
        if (last)
          hy_sga_free(shard, &c->unsent);
        c->unsent.nsegs = 0;
      }
    }
    if (rc == -EAGAIN || rc == -ENOBUFS)
      return hy_drain(shard, c->qd, &qt);
    if (rc < 0)
      return rc;
  }
  return 1;
}

static void go_on(struct connection *c) {
  int rc = push_on(c);
  if (rc > 0 && c->order == LEAVE) {
    connection_end(c, 0, false);
    return;
  }
  if (rc > 0 && c->order == ECHO && !c->ended)
    rc = read_on(c);
  else if (rc > 0 && c->ended && c->last == 0)
    connection_end(c, 0, false);
  if (rc < 0)
    connection_end(c, rc, false);
}

static void on_received(struct connection *c, hy_sga *sga);

/* `more`: what came with the order. */
static void start(struct connection *c, enum order order, uint64_t bytes, hy_sga *more) {
  c->ordered = true;
  c->order = order;
  c->bytes = bytes;
  int rc = 0;
  if (order == SEND || order == LEAVE) {
    c->to_send = bytes;
    go_on(c);
  } else if (order == HALF) {
    rc = hy_shutdown(shard, c->qd);
  } else if (order == ABORT && bytes == 0) {
    connection_end(c, 0, true);
  }
  c->stalled = order == STALL || order == WAIT;
  if (order == WAIT)
    printf("{\"id\": \"%s waits\"}\n", c->id);
  if (c->used && rc == 0 && hy_sga_bytes(more) > 0) {
    on_received(c, more);
    return;
  }
  hy_sga_free(shard, more);
  if (c->used && rc == 0 && !c->stalled)
    rc = read_on(c);
  if (c->used && rc < 0)
    connection_end(c, rc, false);
}

static enum order order_parse(const char *text, uint64_t *bytes) {
  *bytes = 0;
  for (int i = 0; i < NONE; i++) {
    size_t len = strlen(orders[i]);
    if (strncmp(text, orders[i], len) == 0 && (text[len] == ' ' || text[len] == '\0')) {
      *bytes = strtoull(text + len, NULL, 10);
      return (enum order)i;
    }
  }
  return NONE;
}

/* Takes the client's order off the front; true when there is a whole one. What follows stays in the sga. */
static bool order_read(struct connection *c, hy_sga *sga) {
  for (uint32_t i = 0; i < sga->nsegs; i++) {
    hy_seg *seg = &sga->segs[i];
    while (seg->len_bytes > 0) {
      char byte = *(char *)seg->addr;
      seg->addr = (char *)seg->addr + 1;
      seg->len_bytes--;
      if (byte == '\n') {
        c->line[c->line_len] = '\0';
        return true;
      }
      if (c->line_len == sizeof c->line - 1)
        return false;
      c->line[c->line_len++] = byte;
    }
  }
  return false;
}

static void answer(struct connection *c) {
  char text[48];
  int len = snprintf(text, sizeof text, "%" PRIu32 " %" PRIu64 "\n", c->crc_in, c->received);
  int rc = hy_sga_alloc(shard, (size_t)len, &c->unsent);
  if (rc < 0) {
    connection_end(c, rc, false);
    return;
  }
  memcpy(c->unsent.segs[0].addr, text, (size_t)len);
  go_on(c);
}

static void on_received(struct connection *c, hy_sga *sga) {
  size_t bytes = hy_sga_bytes(sga);
  c->received += bytes;
  checksum(&c->crc_in, sga);
  if (c->order == ECHO && bytes > 0) {
    c->unsent = *sga;
    go_on(c);
    return;
  }
  hy_sga_free(shard, sga);
  int rc = 0;
  if (c->order == ABORT && c->received >= c->bytes)
    connection_end(c, 0, true);
  else if (!c->stalled && (rc = read_on(c)) < 0)
    connection_end(c, rc, false);
}

static void on_pop(struct connection *c, hy_event *event) {
  if (event->status < 0) {
    connection_end(c, event->status, false);
    return;
  }
  if (event->sga.nsegs == 0) {
    c->ended = true;
    if (c->order == TAKE || c->order == STALL)
      answer(c);
    else
      go_on(c);
    return;
  }
  if (!c->ordered) {
    bool whole = order_read(c, &event->sga);
    uint64_t bytes;
    enum order order = whole ? order_parse(c->line, &bytes) : NONE;
    if (order != NONE) {
      start(c, order, bytes, &event->sga);
      return;
    }
    hy_sga_free(shard, &event->sga);
    if (whole || read_on(c) < 0)
      connection_end(c, -EPROTO, true);
    return;
  }
  on_received(c, &event->sga);
}

static void on_stream(struct connection *c, hy_event *event) {
  if (!c->used || c->qd != event->qd) { /* ended by an event before this one */
    hy_sga_free(shard, &event->sga);
    return;
  }
  switch (event->op) {
  case HY_OP_CONNECT:
    if (event->status < 0)
      connection_end(c, event->status, false);
    else
      start(c, c->order, c->bytes, &event->sga);
    break;
  case HY_OP_POP:
    on_pop(c, event);
    break;
  case HY_OP_PUSH:
    if (event->qt != c->last)
      break;
    c->last = 0;
    if (event->status < 0)
      connection_end(c, event->status, false);
    else if (c->order == SEND && !c->ended)
      hy_shutdown(shard, c->qd);
    else
      go_on(c);
    break;
  default:
    if (event->status < 0)
      connection_end(c, event->status, false);
    else
      go_on(c);
  }
}

static void on_accept(const hy_event *event) {
  hy_qt qt;
  char id[8];
  hy_accept(shard, listener, &qt);
  if (event->status < 0)
    return;
  snprintf(id, sizeof id, "%u", event->addr.port);
  struct connection *c = connection_open(event->accepted, id);
  if (c != NULL && read_on(c) < 0)
    connection_end(c, -EIO, true);
}

/* ---- datagrams --------------------------------------------------------------------- */

static void volley_end(struct volley *v, int status) {
  printf("{\"id\": \"%s\", \"status\": %d, \"received\": %" PRIu64 "}\n", v->id, status, v->done);
  hy_close(shard, v->qd);
  v->id[0] = '\0';
}

static void volley_go_on(struct volley *v) {
  if (v->left == 0) {
    volley_end(v, 0);
    return;
  }
  hy_sga sga;
  hy_qt qt;
  int rc = hy_sga_alloc(shard, (size_t)(v->left * 37 % DATAGRAM_MAX + 1), &sga);
  if (rc == 0) {
    for (uint32_t i = 0; i < sga.nsegs; i++)
      memset(sga.segs[i].addr, (int)v->left, sga.segs[i].len_bytes);
    rc = hy_push(shard, v->qd, &sga, NULL);
    if (rc < 0)
      hy_sga_free(shard, &sga);
  }
  if (rc == 0)
    rc = hy_pop(shard, v->qd, &qt);
  if (rc < 0)
    volley_end(v, rc);
}

static void on_volley(struct volley *v, hy_event *event) {
  if (event->op != HY_OP_POP) {
    if (event->status < 0)
      volley_end(v, event->status);
    else
      volley_go_on(v);
    return;
  }
  bool good = event->status == 0 && hy_sga_bytes(&event->sga) == v->left * 37 % DATAGRAM_MAX + 1;
  for (uint32_t i = 0; i < event->sga.nsegs; i++)
    for (uint32_t j = 0; j < event->sga.segs[i].len_bytes; j++)
      good = good && ((uint8_t *)event->sga.segs[i].addr)[j] == (uint8_t)v->left;
  hy_sga_free(shard, &event->sga);
  if (!good) {
    volley_end(v, event->status < 0 ? event->status : -EBADMSG);
    return;
  }
  v->left--;
  v->done++;
  volley_go_on(v);
}

static void on_datagram(hy_event *event) {
  hy_qt qt;
  if (event->status == 0 && hy_pushto(shard, datagrams, &event->sga, &event->addr, NULL) < 0)
    hy_sga_free(shard, &event->sga);
  hy_pop(shard, datagrams, &qt);
}

/* ---- orders on standard input ---------------------------------------------------------- */

static void order_connect(const char *id, const char *address, const char *what) {
  hy_addr peer;
  hy_qd qd;
  hy_qt qt;
  int rc = hy_addr_parse(address, &peer);
  if (rc == 0)
    rc = hy_socket(shard, HY_STREAM, &qd);
  struct connection *c = rc == 0 ? connection_open(qd, id) : NULL;
  if (c == NULL) {
    printf("{\"id\": \"%s\", \"status\": %d}\n", id, rc < 0 ? rc : -ENOBUFS);
    return;
  }
  c->order = order_parse(what, &c->bytes);
  rc = c->order == NONE ? -EINVAL : hy_connect(shard, qd, &peer, &qt);
  if (rc < 0)
    connection_end(c, rc, true);
}

static void order_datagrams(const char *id, const char *address, const char *count) {
  hy_addr peer;
  hy_qt qt;
  for (int i = 0; i < DATAGRAMS; i++) {
    struct volley *v = &volleys[i];
    if (v->id[0] != '\0')
      continue;
    v->left = strtoull(count, NULL, 10);
    v->done = 0;
    int rc = hy_addr_parse(address, &peer);
    if (rc == 0)
      rc = hy_socket(shard, HY_DGRAM, &v->qd);
    snprintf(v->id, sizeof v->id, "%s", id);
    hy_set_user(shard, v->qd, v);
    if (rc == 0)
      rc = hy_connect(shard, v->qd, &peer, &qt);
    if (rc < 0)
      volley_end(v, rc);
    return;
  }
}

static void order_stats(const char *id) {
  printf("{\"id\": \"%s\"", id);
  for (unsigned i = 0; i < hy_stat_count(); i++)
    printf(", \"%s\": %" PRIu64, hy_stat_name(i), hy_stat(shard, i));
  printf("}\n");
}

static void obey(char *line) {
  char word[16] = "", id[24] = "", address[HY_ADDR_STRLEN] = "";
  int at = 0;
  sscanf(line, "%15s %23s%n", word, id, &at);
  if (strcmp(word, "connect") == 0 || strcmp(word, "datagrams") == 0) {
    int more = 0;
    sscanf(line + at, " %55s %n", address, &more);
    (word[0] == 'c' ? order_connect : order_datagrams)(id, address, line + at + more);
  } else if (strcmp(word, "stats") == 0) {
    order_stats(id);
  }
  for (int i = 0; i < CONNECTIONS; i++) {
    struct connection *c = &connections[i];
    if (c->used && strcmp(word, "resume") == 0 && c->stalled) {
      c->stalled = false;
      if (c->order == WAIT) {
        c->order = SEND;
        c->to_send = c->bytes;
        go_on(c);
      }
      if (c->used && read_on(c) < 0)
        connection_end(c, -EIO, true);
    } else if (c->used && strcmp(word, "abort") == 0 && strcmp(c->id, id) == 0) {
      connection_end(c, -ECANCELED, true);
    }
  }
}

/* False at the end of standard input. */
static bool obey_all(void) {
  static char line[LINE];
  static size_t len;
  char piece[4096];
  ssize_t n = read(STDIN_FILENO, piece, sizeof piece);
  for (ssize_t i = 0; i < n; i++) {
    if (piece[i] != '\n') {
      if (len < sizeof line - 1)
        line[len++] = piece[i];
      continue;
    }
    line[len] = '\0';
    len = 0;
    obey(line);
  }
  return n != 0;
}

static int open_ports(uint16_t port) {
  hy_addr any = {.port = port};
  hy_qt qt;
  int rc = hy_socket(shard, HY_STREAM, &listener);
  if (rc == 0)
    rc = hy_bind(shard, listener, &any);
  if (rc == 0)
    rc = hy_listen(shard, listener, 1024);
  if (rc == 0)
    rc = hy_socket(shard, HY_DGRAM, &datagrams);
  if (rc == 0)
    rc = hy_bind(shard, datagrams, &any);
  for (int i = 0; rc == 0 && i < ACCEPTS; i++)
    rc = hy_accept(shard, listener, &qt);
  for (int i = 0; rc == 0 && i < DATAGRAMS; i++)
    rc = hy_pop(shard, datagrams, &qt);
  return rc == 0 ? hy_shard_ready(shard) : rc;
}

int main(int argc, char **argv) {
  for (int i = 0; i < CONNECTIONS; i++) {
    connections[i].next_free = free_connection;
    free_connection = &connections[i];
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
  int rc = argc >= 2 ? peer_app_shard(argc - 2, argv + 2, &shard) : -EINVAL;
  if (rc == 0)
    rc = open_ports((uint16_t)strtoul(argv[1], NULL, 10));
  printf("{\"id\": \"\", \"status\": %d}\n", rc);
  hy_event events[EVENTS];
  while (rc == 0 && obey_all()) {
    int n = hy_wait_any(shard, events, EVENTS, 5 * 1000 * 1000);
    for (int i = 0; i < n; i++) {
      hy_event *event = &events[i];
      struct volley *v = event->user;
      if (event->status == -ECANCELED)
        continue; /* we closed it */
      if (event->op == HY_OP_ACCEPT)
        on_accept(event);
      else if (event->qd == datagrams)
        on_datagram(event);
      else if (v >= volleys && v < volleys + DATAGRAMS)
        on_volley(v, event);
      else
        on_stream(event->user, event);
    }
    if (n < 0 && n != -EINTR)
      rc = n;
  }
  hy_shard_close(shard);
  return rc == 0 ? 0 : 1;
}
