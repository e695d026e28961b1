/* SPDX-License-Identifier: Apache-2.0 */
/* The host table: what a shard makes of what somebody else writes. */
#include "check.h"
#include "core/host.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

/* A writer's end, a reader's end of the same memory, and the reader's view. */
static hy_host *writer, *reader;
static struct host_view view;

static int open_both(void **state) {
  return hy_host_create(&writer) || hy_host_open(hy_host_fd(writer), &reader) || host_view_init(&view);
}

static int close_both(void **state) {
  host_view_fini(&view);
  hy_host_close(reader);
  hy_host_close(writer);
  return 0;
}

static hy_addr addr(const char *text) {
  hy_addr a = {0};
  if (text != NULL && hy_addr_parse(text, &a) != 0)
    fail_msg("%s is no address", text);
  return a;
}

static const uint8_t *ip(const char *text) {
  static hy_addr kept[4];
  static unsigned turn;
  turn = (turn + 1) % 4;
  kept[turn] = addr(text);
  return kept[turn].ip;
}

static hy_host_link link_row(uint32_t ifindex, uint32_t mtu) {
  return (hy_host_link){.ifindex = ifindex, .mtu_bytes = mtu, .mac = {2, 0, 0, 0, 0, (uint8_t)ifindex}};
}

static hy_host_addr addr_row(const char *text, uint32_t len, uint32_t ifindex) {
  return (hy_host_addr){.addr = addr(text), .ifindex = ifindex, .prefix_len = len};
}

static hy_host_route route_row(const char *dst, uint32_t len, const char *gateway, uint32_t ifindex,
                               uint32_t metric) {
  return (hy_host_route){
      .dst = addr(dst), .gateway = addr(gateway), .prefix_len = len, .ifindex = ifindex, .metric = metric};
}

static hy_host_neigh neigh_row(const char *text, uint32_t ifindex, uint8_t last) {
  return (hy_host_neigh){.addr = addr(text), .ifindex = ifindex, .mac = {2, 9, 9, 9, 9, last}};
}

#define ROWS(array) (array), sizeof(array) / sizeof *(array)

/* ---- following ---- */

static void a_view_takes_each_update_once(void **state) {
  const hy_host_link links[] = {link_row(2, 1500)};
  assert_true(host_view_refresh(&view, reader)); /* the empty table */
  assert_false(host_view_refresh(&view, reader));
  assert_null(host_link(&view, 2));
  uint32_t version = view.version;
  assert_int_equal(hy_host_update(writer, ROWS(links), NULL, 0, NULL, 0, NULL, 0), 0);
  assert_null(host_link(&view, 2));
  assert_true(host_view_refresh(&view, reader));
  assert_true(view.version != version);
  assert_int_equal(host_link(&view, 2)->mtu_bytes, 1500);
  assert_false(host_view_refresh(&view, reader));
}

static void an_update_replaces_everything(void **state) {
  const hy_host_addr addrs[] = {addr_row("10.0.0.1", 24, 2)};
  const hy_host_neigh neighs[] = {neigh_row("10.0.0.9", 2, 1)};
  assert_int_equal(hy_host_update(writer, NULL, 0, ROWS(addrs), NULL, 0, ROWS(neighs)), 0);
  host_view_refresh(&view, reader);
  assert_true(host_is_local(&view, ip("10.0.0.1")));
  assert_non_null(host_neigh(&view, 2, ip("10.0.0.9")));
  assert_int_equal(hy_host_update(writer, NULL, 0, NULL, 0, NULL, 0, NULL, 0), 0);
  host_view_refresh(&view, reader);
  assert_false(host_is_local(&view, ip("10.0.0.1")));
  assert_null(host_neigh(&view, 2, ip("10.0.0.9")));
}

static void too_many_rows_change_nothing(void **state) {
  static hy_host_neigh neighs[HY_HOST_NEIGHS + 1];
  const hy_host_link links[] = {link_row(2, 1500)};
  assert_int_equal(hy_host_update(writer, ROWS(links), NULL, 0, NULL, 0, NULL, 0), 0);
  assert_int_equal(hy_host_update(writer, NULL, 0, NULL, 0, NULL, 0, ROWS(neighs)), -E2BIG);
  host_view_refresh(&view, reader);
  assert_non_null(host_link(&view, 2));
}

static void turning_to_another_table_takes_it_though_its_count_is_the_same(void **state) {
  hy_host *other;
  const hy_host_link links[] = {link_row(7, 1500)};
  assert_int_equal(hy_host_create(&other), 0);
  assert_int_equal(hy_host_update(writer, NULL, 0, NULL, 0, NULL, 0, NULL, 0), 0);
  assert_int_equal(hy_host_update(other, ROWS(links), NULL, 0, NULL, 0, NULL, 0), 0);
  host_view_refresh(&view, reader);
  host_view_forget(&view);
  assert_true(host_view_refresh(&view, other));
  assert_non_null(host_link(&view, 7));
  hy_host_close(other);
}

/* ---- who may do what with the memory ---- */

static void a_reader_can_neither_write_nor_resize(void **state) {
  assert_int_equal(hy_host_update(reader, NULL, 0, NULL, 0, NULL, 0, NULL, 0), -EPERM);
  assert_int_equal(ftruncate(hy_host_fd(reader), 0), -1);
  assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, hy_host_fd(reader), 0), MAP_FAILED);
}

static void what_is_no_host_table_is_refused(void **state) {
  hy_host *host;
  int fd = memfd_create("other", MFD_ALLOW_SEALING);
  assert_int_equal(hy_host_open(fd, &host), -EINVAL); /* not sealed */
  assert_int_equal(ftruncate(fd, 100), 0);
  assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  assert_int_equal(hy_host_open(fd, &host), -EINVAL); /* too short */
  assert_int_equal(ftruncate(fd, sizeof(struct host_table)), 0);
  assert_int_equal(hy_host_open(fd, &host), -EINVAL); /* no magic */
  close(fd);
  assert_int_equal(hy_host_open(fd, &host), -EBADF);
}

/* A table whose writer writes what it likes. */
static struct host_table *hostile_table(hy_host **host) {
  int fd = memfd_create("hostile", MFD_ALLOW_SEALING);
  assert_int_equal(ftruncate(fd, sizeof(struct host_table)), 0);
  assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  struct host_table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  assert_ptr_not_equal(table, MAP_FAILED);
  table->magic = HOST_MAGIC;
  table->layout = HOST_LAYOUT;
  assert_int_equal(hy_host_open(fd, host), 0);
  close(fd);
  return table;
}

static void while_the_writer_is_in_the_middle_the_old_view_stays(void **state) {
  hy_host *host;
  struct host_table *table = hostile_table(&host);
  table->rows.nlinks = 1;
  table->rows.links[0] = link_row(2, 1500);
  table->seq = 2;
  assert_true(host_view_refresh(&view, host));
  table->rows.links[0].mtu_bytes = 9000;
  table->seq = 3;
  assert_false(host_view_refresh(&view, host));
  assert_int_equal(host_link(&view, 2)->mtu_bytes, 1500);
  table->seq = 4;
  assert_true(host_view_refresh(&view, host));
  assert_int_equal(host_link(&view, 2)->mtu_bytes, 9000);
  munmap(table, sizeof *table);
  hy_host_close(host);
}

static void counts_that_do_not_fit_count_for_nothing(void **state) {
  hy_host *host;
  struct host_table *table = hostile_table(&host);
  table->rows.nlinks = HY_HOST_LINKS + 1;
  table->rows.naddrs = table->rows.nroutes = table->rows.nneighs = UINT32_MAX;
  table->seq = 2;
  assert_true(host_view_refresh(&view, host));
  assert_int_equal(view.rows.nlinks + view.rows.naddrs + view.rows.nroutes + view.rows.nneighs, 0);
  munmap(table, sizeof *table);
  hy_host_close(host);
}

/* Random bytes for rows, in full numbers: every lookup must come back, and what it says must be sane. */
static int any_bytes_are_survived(uint64_t seed) {
  struct dice dice = {seed};
  struct host_rows *rows = view.scratch;
  uint64_t *words = (uint64_t *)rows;
  for (size_t i = 0; i < sizeof *rows / sizeof *words; i++)
    words[i] = dice_u64(&dice);
  rows->nlinks = HY_HOST_LINKS;
  rows->naddrs = HY_HOST_ADDRS;
  rows->nroutes = HY_HOST_ROUTES;
  rows->nneighs = HY_HOST_NEIGHS;
  /* Half of them look right at first sight, or none would get past the checks. */
  for (unsigned i = 0; i < HY_HOST_NEIGHS; i += 2) {
    rows->neighs[i].addr.family = 6;
    rows->addrs[i % HY_HOST_ADDRS].addr.family = 6;
    rows->addrs[i % HY_HOST_ADDRS].prefix_len = dice_below(&dice, 140);
    hy_host_route *route = &rows->routes[i % HY_HOST_ROUTES];
    route->dst.family = 6;
    route->prefix_len = dice_below(&dice, 140);
    route->gateway.family = route->source.family = dice_below(&dice, 2) ? 6 : 0;
    route->ifindex = rows->links[i % HY_HOST_LINKS].ifindex;
  }
  host_view_adopt(&view);
  HOLDS(view.rows.nroutes > 0 && view.rows.nroutes < HY_HOST_ROUTES);
  for (unsigned i = 0; i < 100; i++) {
    const uint8_t *some = view.scratch->routes[i].dst.ip;
    struct host_hop hop;
    host_is_local(&view, some);
    host_neigh(&view, (uint32_t)dice_u64(&dice), some);
    if (host_route(&view, some, &hop))
      HOLDS(host_link(&view, hop.ifindex) != NULL && hop.mtu_bytes >= 68 && hop.mtu_bytes <= 65535);
  }
  return 0;
}

static void property_any_bytes_are_survived(void **state) {
  for_seeds(300, any_bytes_are_survived);
}

static void rows_that_make_no_sense_are_left_out_and_the_others_kept(void **state) {
  hy_host_addr addrs[] = {addr_row("10.0.0.1", 24, 2), addr_row("10.0.0.2", 33, 2),
                          addr_row("10.0.0.3", 24, 0), addr_row("2001:db8::1", 129, 2),
                          addr_row("10.0.0.4", 24, 2)};
  addrs[4].addr.family = 6; /* a mapped address that says it is IPv6 */
  hy_host_neigh neighs[] = {neigh_row("10.0.0.8", 2, 8), neigh_row("10.0.0.9", 2, 9),
                            neigh_row("10.0.0.10", 2, 10)};
  neighs[1].mac[0] = 1; /* a group address */
  memset(neighs[2].mac, 0, 6);
  const hy_host_link links[] = {link_row(2, 67), link_row(3, 65536), link_row(0, 1500)};
  hy_host_update(writer, ROWS(links), ROWS(addrs), NULL, 0, ROWS(neighs));
  host_view_refresh(&view, reader);
  assert_int_equal(view.rows.naddrs, 1);
  assert_int_equal(view.rows.nneighs, 1);
  assert_int_equal(view.rows.nlinks, 1);
  assert_true(host_is_local(&view, ip("10.0.0.1")));
  assert_non_null(host_neigh(&view, 2, ip("10.0.0.8")));
  assert_int_equal(host_link(&view, 3)->mtu_bytes, 65535);
}

/* ---- looking up ---- */

static void assert_hop(const char *dst, uint32_t ifindex, const char *nexthop, const char *source) {
  struct host_hop hop;
  if (!host_route(&view, ip(dst), &hop))
    fail_msg("no route to %s", dst);
  assert_int_equal(hop.ifindex, ifindex);
  assert_memory_equal(hop.nexthop, ip(nexthop), 16);
  assert_memory_equal(hop.source, ip(source), 16);
}

static void the_longest_prefix_wins_and_then_the_lowest_metric(void **state) {
  const hy_host_link links[] = {link_row(2, 1500), link_row(3, 1500)};
  const hy_host_addr addrs[] = {addr_row("10.0.0.1", 24, 2), addr_row("10.1.0.1", 16, 3)};
  const hy_host_route routes[] = {
      route_row("0.0.0.0", 0, "10.0.0.254", 2, 100), route_row("0.0.0.0", 0, "10.1.0.254", 3, 50),
      route_row("10.0.0.0", 24, NULL, 2, 0),         route_row("10.1.0.0", 16, NULL, 3, 0),
      route_row("10.1.2.0", 24, "10.0.0.7", 2, 900),
  };
  hy_host_update(writer, ROWS(links), ROWS(addrs), ROWS(routes), NULL, 0);
  host_view_refresh(&view, reader);
  assert_hop("192.0.2.1", 3, "10.1.0.254", "10.1.0.1");
  assert_hop("10.0.0.77", 2, "10.0.0.77", "10.0.0.1");
  assert_hop("10.1.9.9", 3, "10.1.9.9", "10.1.0.1");
  assert_hop("10.1.2.3", 2, "10.0.0.7", "10.0.0.1");
}

static void an_ipv6_default_route_does_not_take_ipv4_and_the_other_way_round(void **state) {
  const hy_host_link links[] = {link_row(2, 1500)};
  const hy_host_route v6[] = {route_row("::", 0, "fe80::1", 2, 0)};
  const hy_host_route v4[] = {route_row("0.0.0.0", 0, "10.0.0.254", 2, 0)};
  struct host_hop hop;
  hy_host_update(writer, ROWS(links), NULL, 0, ROWS(v6), NULL, 0);
  host_view_refresh(&view, reader);
  assert_false(host_route(&view, ip("192.0.2.1"), &hop));
  assert_true(host_route(&view, ip("2001:db8::1"), &hop));
  hy_host_update(writer, ROWS(links), NULL, 0, ROWS(v4), NULL, 0);
  host_view_refresh(&view, reader);
  assert_true(host_route(&view, ip("192.0.2.1"), &hop));
  assert_false(host_route(&view, ip("2001:db8::1"), &hop));
}

static void the_source_is_the_preferred_one_or_of_the_next_hops_prefix_and_scope(void **state) {
  const hy_host_link links[] = {link_row(2, 1500)};
  const hy_host_addr addrs[] = {addr_row("fe80::2", 64, 2), addr_row("2001:db8:1::2", 64, 2),
                                addr_row("2001:db8:2::2", 64, 2), addr_row("10.0.0.2", 24, 2),
                                addr_row("10.9.0.2", 24, 2)};
  hy_host_route routes[] = {
      route_row("2001:db8:1::", 64, NULL, 2, 0),   route_row("2001:db8:2::", 64, NULL, 2, 0),
      route_row("fe80::", 64, NULL, 2, 0),         route_row("10.9.0.0", 24, NULL, 2, 0),
      route_row("10.8.0.0", 24, "10.9.0.1", 2, 0), route_row("10.7.0.0", 24, "10.9.0.1", 2, 0),
      route_row("::", 0, "fe80::1", 2, 0),
  };
  routes[5].source = addr("10.0.0.2");
  hy_host_update(writer, ROWS(links), ROWS(addrs), ROWS(routes), NULL, 0);
  host_view_refresh(&view, reader);
  assert_hop("2001:db8:1::9", 2, "2001:db8:1::9", "2001:db8:1::2");
  assert_hop("2001:db8:2::9", 2, "2001:db8:2::9", "2001:db8:2::2");
  assert_hop("fe80::9", 2, "fe80::9", "fe80::2");
  assert_hop("10.9.0.9", 2, "10.9.0.9", "10.9.0.2");
  assert_hop("10.8.0.9", 2, "10.9.0.1", "10.9.0.2");
  assert_hop("10.7.0.9", 2, "10.9.0.1", "10.0.0.2");
  /* The gateway is link-local, the destination is not: neither is the source. */
  assert_hop("2001:db8:7::9", 2, "fe80::1", "2001:db8:1::2");
}

static void a_host_without_an_address_that_fits_has_no_source(void **state) {
  const hy_host_link links[] = {link_row(2, 1500)};
  const hy_host_addr addrs[] = {addr_row("fe80::3", 64, 3)};
  const hy_host_route routes[] = {route_row("10.0.0.0", 8, NULL, 2, 0),
                                  route_row("2001:db8::", 32, NULL, 2, 0)};
  static const uint8_t none[16];
  struct host_hop hop;
  hy_host_update(writer, ROWS(links), ROWS(addrs), ROWS(routes), NULL, 0);
  host_view_refresh(&view, reader);
  assert_true(host_route(&view, ip("10.0.0.1"), &hop));
  assert_memory_equal(hop.source, none, 16);
  assert_true(host_route(&view, ip("2001:db8::1"), &hop));
  assert_memory_equal(hop.source, none, 16);
}

static void the_mtu_is_the_routes_or_the_links_whichever_is_smaller(void **state) {
  const hy_host_link links[] = {link_row(2, 1500)};
  hy_host_route routes[] = {route_row("10.0.0.0", 24, NULL, 2, 0), route_row("10.0.1.0", 24, NULL, 2, 0),
                            route_row("10.0.2.0", 24, NULL, 2, 0)};
  routes[1].mtu_bytes = 1400;
  routes[2].mtu_bytes = 9000;
  static const uint32_t want[] = {1500, 1400, 1500};
  hy_host_update(writer, ROWS(links), NULL, 0, ROWS(routes), NULL, 0);
  host_view_refresh(&view, reader);
  for (unsigned i = 0; i < 3; i++) {
    struct host_hop hop;
    uint8_t dst[16];
    memcpy(dst, ip("10.0.0.5"), 16);
    dst[14] = (uint8_t)i;
    assert_true(host_route(&view, dst, &hop));
    assert_int_equal(hop.mtu_bytes, want[i]);
  }
}

static void a_route_over_an_unknown_link_is_no_route_though_a_shorter_one_matches(void **state) {
  const hy_host_link links[] = {link_row(2, 1500)};
  const hy_host_route routes[] = {route_row("0.0.0.0", 0, "10.0.0.254", 2, 0),
                                  route_row("10.5.0.0", 16, NULL, 99, 0)};
  struct host_hop hop;
  hy_host_update(writer, ROWS(links), NULL, 0, ROWS(routes), NULL, 0);
  host_view_refresh(&view, reader);
  assert_false(host_route(&view, ip("10.5.0.1"), &hop));
}

static void a_full_neighbour_table_finds_each_and_nothing_else(void **state) {
  static hy_host_neigh neighs[HY_HOST_NEIGHS];
  for (uint32_t i = 0; i < HY_HOST_NEIGHS; i++) {
    neighs[i] = neigh_row("10.0.0.0", 2 + i % 2, (uint8_t)i);
    neighs[i].addr.ip[14] = (uint8_t)(i >> 8);
    neighs[i].addr.ip[15] = (uint8_t)i;
  }
  hy_host_update(writer, NULL, 0, NULL, 0, NULL, 0, ROWS(neighs));
  host_view_refresh(&view, reader);
  for (uint32_t i = 0; i < HY_HOST_NEIGHS; i++) {
    const uint8_t *mac = host_neigh(&view, 2 + i % 2, neighs[i].addr.ip);
    assert_non_null(mac);
    assert_memory_equal(mac, neighs[i].mac, 6);
    assert_null(host_neigh(&view, 3 - i % 2, neighs[i].addr.ip));
  }
}

/* ---- two processes at once (here: threads) ---- */

static atomic_bool stop;
static atomic_uint reads; /* that have begun */

/* Every row of generation g says g, and there are g % 16 + 1 links. */
static void *write_generations(void *arg) {
  for (uint32_t g = 1; !atomic_load(&stop); g++) {
    hy_host_link links[HY_HOST_LINKS];
    hy_host_neigh neighs[64];
    for (uint32_t i = 0; i < HY_HOST_LINKS; i++) {
      links[i] = link_row(i + 1, 1000 + g % 8000);
    }
    for (uint32_t i = 0; i < 64; i++) {
      neighs[i] = neigh_row("10.0.0.1", i + 1, 0);
      memcpy(&neighs[i].mac[2], &g, 4);
    }
    hy_host_update(writer, links, g % HY_HOST_LINKS + 1, NULL, 0, NULL, 0, ROWS(neighs));
    /* The next may fall into a read, but not every one: a reader must get its turn. */
    for (unsigned begun = atomic_load(&reads); atomic_load(&reads) == begun && !atomic_load(&stop);)
      sched_yield();
  }
  return NULL;
}

static void a_view_is_never_a_mixture_of_two_updates(void **state) {
  pthread_t thread;
  atomic_store(&stop, false);
  assert_int_equal(pthread_create(&thread, NULL, write_generations, NULL), 0);
  unsigned taken = 0;
  bool torn = false;
  for (unsigned tries = 0; taken < 3000 && tries < 100000000 && !torn; tries++) {
    atomic_fetch_add(&reads, 1);
    if (!host_view_refresh(&view, reader)) {
      sched_yield(); /* the writer may want this core */
      continue;
    }
    taken++;
    uint32_t g = 0;
    if (view.rows.nneighs > 0)
      memcpy(&g, &view.rows.neighs[0].mac[2], 4);
    torn = g != 0 && view.rows.nlinks != g % HY_HOST_LINKS + 1;
    for (uint32_t i = 0; i < view.rows.nneighs; i++)
      torn |= memcmp(&view.rows.neighs[i].mac[2], &g, 4) != 0;
    for (uint32_t i = 0; i < view.rows.nlinks; i++)
      torn |= view.rows.links[i].mtu_bytes != 1000 + g % 8000;
  }
  atomic_store(&stop, true);
  pthread_join(thread, NULL);
  assert_false(torn);
  assert_int_equal(taken, 3000);
}

#define ON_A_TABLE(test) cmocka_unit_test_setup_teardown(test, open_both, close_both)

int main(void) {
  const struct CMUnitTest tests[] = {
      ON_A_TABLE(a_view_takes_each_update_once),
      ON_A_TABLE(an_update_replaces_everything),
      ON_A_TABLE(too_many_rows_change_nothing),
      ON_A_TABLE(turning_to_another_table_takes_it_though_its_count_is_the_same),
      ON_A_TABLE(a_reader_can_neither_write_nor_resize),
      ON_A_TABLE(what_is_no_host_table_is_refused),
      ON_A_TABLE(while_the_writer_is_in_the_middle_the_old_view_stays),
      ON_A_TABLE(counts_that_do_not_fit_count_for_nothing),
      ON_A_TABLE(property_any_bytes_are_survived),
      ON_A_TABLE(rows_that_make_no_sense_are_left_out_and_the_others_kept),
      ON_A_TABLE(the_longest_prefix_wins_and_then_the_lowest_metric),
      ON_A_TABLE(an_ipv6_default_route_does_not_take_ipv4_and_the_other_way_round),
      ON_A_TABLE(the_source_is_the_preferred_one_or_of_the_next_hops_prefix_and_scope),
      ON_A_TABLE(a_host_without_an_address_that_fits_has_no_source),
      ON_A_TABLE(the_mtu_is_the_routes_or_the_links_whichever_is_smaller),
      ON_A_TABLE(a_route_over_an_unknown_link_is_no_route_though_a_shorter_one_matches),
      ON_A_TABLE(a_full_neighbour_table_finds_each_and_nothing_else),
      ON_A_TABLE(a_view_is_never_a_mixture_of_two_updates),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
