/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rule sets and counters. A rule set is built whole in this process, becomes a
 * map of its own that is frozen, and replaces the one before by one pointer.
 */
#include "bpf/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

static_assert((int)HY_STEER_RULES == (int)STEER_RULES, "one limit");
static_assert((int)HY_STEER_QUEUES == (int)STEER_QUEUES, "one limit");
static_assert((int)HY_STEER_NAME_BYTES == (int)STEER_NAME_BYTES, "one limit");
static_assert((int)HY_STEER_REASONS_MAX == (int)STEER_REASONS_MAX, "one limit");
static_assert((int)HY_STEER_AFXDP == (int)STEER_TO_AFXDP && (int)HY_STEER_KERNEL == (int)STEER_TO_KERNEL &&
                  (int)HY_STEER_DROP == (int)STEER_TO_DROP && (int)HY_STEER_DPDK == (int)STEER_TO_DPDK &&
                  (int)HY_STEER_URING == (int)STEER_TO_URING,
              "one set of verdicts");
static_assert(sizeof(hy_steer_count) == sizeof(struct steer_count), "copied as is");

/* How often a reader starts again because the rules changed under it. */
enum { READ_TRIES = 16 };

static const struct {
  const char *name, *help;
} reasons[STEER_REASON_COUNT] = {
#define STEER_REASON_WORDS(symbol, name, help) {name, help},
    STEER_REASONS(STEER_REASON_WORDS)
#undef STEER_REASON_WORDS
};

unsigned hy_steer_reason_count(void) {
  return STEER_REASON_COUNT;
}

const char *hy_steer_reason_name(unsigned index) {
  return index < STEER_REASON_COUNT ? reasons[index].name : NULL;
}

const char *hy_steer_reason_help(unsigned index) {
  return index < STEER_REASON_COUNT ? reasons[index].help : NULL;
}

/* ---- reading ------------------------------------------------------------ */

static int ruleset_read(const hy_steer *steer, struct steer_ruleset *out) {
  uint32_t zero = 0, id;
  for (int i = 0; i < READ_TRIES; i++) {
    int err = bpf_map_lookup_elem(steer->map_fds[STEER_MAP_GENERATIONS], &zero, &id);
    if (err)
      return err;
    int fd = bpf_map_get_fd_by_id(id);
    if (fd == -ENOENT)
      continue; /* replaced between the two calls */
    if (fd < 0)
      return fd;
    err = bpf_map_lookup_elem(fd, &zero, out);
    close(fd);
    if (err)
      return err;
    if (out->count > STEER_RULES)
      return -EPROTO;
    for (uint32_t r = 0; r < out->count; r++)
      if (out->slots[r] >= STEER_SLOTS)
        return -EPROTO;
    return 0;
  }
  return -EAGAIN;
}

static void count_add(struct steer_count *sum, const struct steer_count *more) {
  sum->packets += more->packets;
  sum->bytes += more->bytes;
}

/* The sum over all CPUs. */
static int counters_read(const hy_steer *steer, struct steer_counters *out) {
  int cpus = libbpf_num_possible_cpus();
  if (cpus < 0)
    return cpus;
  struct steer_counters *each = malloc((size_t)cpus * sizeof(*each));
  if (!each)
    return -ENOMEM;
  uint32_t zero = 0;
  int err = bpf_map_lookup_elem(steer->map_fds[STEER_MAP_COUNTERS], &zero, each);
  memset(out, 0, sizeof(*out));
  for (int cpu = 0; !err && cpu < cpus; cpu++) {
    for (int i = 0; i < STEER_REASONS_MAX; i++)
      count_add(&out->reasons[i], &each[cpu].reasons[i]);
    for (int i = 0; i < STEER_SLOTS; i++) {
      count_add(&out->slots[i].hit, &each[cpu].slots[i].hit);
      count_add(&out->slots[i].no_socket, &each[cpu].slots[i].no_socket);
    }
  }
  free(each);
  return err;
}

static hy_steer_count count_since(const struct steer_count *now, const struct steer_count *base) {
  return (hy_steer_count){.packets = now->packets - base->packets, .bytes = now->bytes - base->bytes};
}

static void rule_export(const struct steer_rule *from, hy_steer_rule *to) {
  memset(to, 0, sizeof(*to));
  memcpy(to->name, from->name, sizeof(to->name));
  to->name[sizeof(to->name) - 1] = '\0';
  to->priority = from->priority;
  to->verdict = from->verdict;
  to->fallback = from->fallback;
  to->protocol = from->match.protocol;
  to->family = from->match.family;
  to->source_len = from->match.source_len;
  to->destination_len = from->match.destination_len;
  to->port_lo = from->match.port_lo;
  to->port_hi = from->match.port_hi;
  memcpy(to->source, from->match.source, sizeof(to->source));
  memcpy(to->destination, from->match.destination, sizeof(to->destination));
}

static int counters_fill(const hy_steer *steer, hy_steer_counters *out, struct steer_ruleset *rules,
                         struct steer_counters *counted) {
  /*
   * A slot means one rule for as long as its generation stands and one more, so
   * what was read belongs together unless the rules changed twice meanwhile:
   * asking once more after the counters shows whether they changed at all.
   */
  for (int i = 0; i < READ_TRIES; i++) {
    uint32_t zero = 0, before = 0, after = 0;
    int err = bpf_map_lookup_elem(steer->map_fds[STEER_MAP_GENERATIONS], &zero, &before);
    if (!err)
      err = ruleset_read(steer, rules);
    if (!err)
      err = counters_read(steer, counted);
    if (!err)
      err = bpf_map_lookup_elem(steer->map_fds[STEER_MAP_GENERATIONS], &zero, &after);
    if (err)
      return err;
    if (before != after)
      continue;
    out->generation = rules->generation;
    out->rule_count = rules->count;
    memcpy(out->reasons, counted->reasons, sizeof(out->reasons));
    for (uint32_t r = 0; r < rules->count; r++) {
      const struct steer_rule *rule = &rules->rules[r];
      const struct steer_rule_count *slot = &counted->slots[rules->slots[r]];
      rule_export(rule, &out->rules[r]);
      out->hit[r] = count_since(&slot->hit, &rule->base.hit);
      out->no_socket[r] = count_since(&slot->no_socket, &rule->base.no_socket);
    }
    return 0;
  }
  return -EAGAIN;
}

int hy_steer_counters_get(const hy_steer *steer, hy_steer_counters *out, hy_steer_error *error) {
  memset(out, 0, sizeof(*out));
  struct steer_ruleset *rules = malloc(sizeof(*rules));
  struct steer_counters *counted = malloc(sizeof(*counted));
  int err = rules && counted ? counters_fill(steer, out, rules, counted) : -ENOMEM;
  free(counted);
  free(rules);
  if (err)
    return steer_fail(error, err, "cannot read the steering counters: %s", strerror(-err));
  return 0;
}

/* ---- building ----------------------------------------------------------- */

/* The first len bits of address, the rest zero. */
static void prefix_truncate(const uint8_t *address, unsigned len, uint8_t *out) {
  memset(out, 0, 16);
  memcpy(out, address, (len + 7) / 8);
  if (len % 8)
    out[len / 8] = (uint8_t)(out[len / 8] & (0xff00u >> (len % 8)));
}

/* Into the words that the program loads from the packet; see struct steer_prefix. */
static void prefix_words(const uint8_t *address, unsigned family, uint64_t words[2]) {
  if (family == 4) {
    uint32_t word;
    memcpy(&word, address, sizeof(word));
    words[0] = word;
    words[1] = 0;
  } else {
    memcpy(words, address, 16);
  }
}

static void prefix_build(const uint8_t *address, unsigned len, unsigned family, __u64 value_out[2],
                         __u64 mask_out[2]) {
  uint8_t ones[16], mask[16];
  uint64_t value_words[2], mask_words[2];
  memset(ones, 0xff, sizeof(ones));
  prefix_truncate(ones, len, mask);
  prefix_words(address, family, value_words);
  prefix_words(mask, family, mask_words);
  for (int i = 0; i < 2; i++) {
    value_out[i] = value_words[i];
    mask_out[i] = mask_words[i];
  }
}

static int rule_check(const hy_steer_rule *rule, hy_steer_error *error) {
  if (rule->name[0] == '\0' || !memchr(rule->name, '\0', sizeof(rule->name)))
    return steer_fail(error, -EINVAL, "a rule's name must have 1 to %d bytes", STEER_NAME_BYTES - 1);
  const char *name = rule->name;
  if (rule->verdict < STEER_TO_AFXDP || rule->verdict > STEER_TO_URING)
    return steer_fail(error, -EINVAL, "rule '%s': there is no verdict %u", name, rule->verdict);
  if (rule->protocol != 0 && rule->protocol != IPPROTO_TCP && rule->protocol != IPPROTO_UDP)
    return steer_fail(error, -EINVAL, "rule '%s': protocol %u is neither TCP nor UDP", name, rule->protocol);
  if (rule->family != 0 && rule->family != 4 && rule->family != 6)
    return steer_fail(error, -EINVAL, "rule '%s': there is no address family %u", name, rule->family);
  unsigned bits = rule->family == 4 ? 32 : rule->family == 6 ? 128 : 0;
  if (rule->source_len > bits || rule->destination_len > bits)
    return steer_fail(error, -EINVAL, "rule '%s': a prefix is longer than %u bits", name, bits);
  if (rule->port_lo > rule->port_hi)
    return steer_fail(error, -EINVAL, "rule '%s': ports %u-%u are no range", name, rule->port_lo,
                      rule->port_hi);
  return 0;
}

static uint8_t kinds_of(const hy_steer_rule *rule) {
  unsigned kinds = STEER_TCP4 | STEER_UDP4 | STEER_TCP6 | STEER_UDP6;
  if (rule->protocol == IPPROTO_TCP)
    kinds &= STEER_TCP4 | STEER_TCP6;
  if (rule->protocol == IPPROTO_UDP)
    kinds &= STEER_UDP4 | STEER_UDP6;
  if (rule->family == 4)
    kinds &= STEER_TCP4 | STEER_UDP4;
  if (rule->family == 6)
    kinds &= STEER_TCP6 | STEER_UDP6;
  return (uint8_t)kinds;
}

static void rule_build(struct steer_ruleset *set, uint32_t at, const hy_steer_rule *rule) {
  struct steer_rule *kept = &set->rules[at];
  memcpy(kept->name, rule->name, strlen(rule->name)); /* the rest stays zero, so that names compare whole */
  kept->priority = rule->priority;
  kept->verdict = rule->verdict;
  kept->fallback = rule->fallback;
  kept->match.protocol = rule->protocol;
  kept->match.family = rule->family;
  kept->match.source_len = rule->source_len;
  kept->match.destination_len = rule->destination_len;
  kept->match.port_lo = rule->port_lo;
  kept->match.port_hi = rule->port_hi;
  prefix_truncate(rule->source, rule->source_len, kept->match.source);
  prefix_truncate(rule->destination, rule->destination_len, kept->match.destination);

  set->heads[at] = (struct steer_head){
      .port_lo = rule->port_lo,
      .port_span = (uint16_t)(rule->port_hi - rule->port_lo),
      .kinds = kinds_of(rule),
      .verdict = rule->verdict == STEER_TO_URING ? STEER_TO_KERNEL : rule->verdict,
      .prefixed = rule->source_len || rule->destination_len,
      .fallback = rule->fallback != 0,
  };
  struct steer_prefix *prefix = &set->prefixes[at];
  prefix_build(kept->match.source, rule->source_len, rule->family, prefix->source, prefix->source_mask);
  prefix_build(kept->match.destination, rule->destination_len, rule->family, prefix->destination,
               prefix->destination_mask);
}

/* Indices of rules, highest priority first, those of one priority in the order given. */
static void order_by_priority(const hy_steer_rule *rules, uint32_t count, uint16_t *order) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t at = i;
    for (; at > 0 && rules[order[at - 1]].priority < rules[i].priority; at--)
      order[at] = order[at - 1];
    order[at] = (uint16_t)i;
  }
}

/* Slots: from the same rule of the generation before, else one that neither generation uses. */
static void slots_assign(struct steer_ruleset *set, const struct steer_ruleset *before,
                         const struct steer_counters *counted) {
  bool used[STEER_SLOTS] = {false};
  for (uint32_t i = 0; i < before->count; i++)
    used[before->slots[i]] = true;
  unsigned next = 0;
  for (uint32_t i = 0; i < set->count; i++) {
    struct steer_rule *rule = &set->rules[i];
    uint32_t same = 0;
    for (; same < before->count; same++)
      if (memcmp(rule->name, before->rules[same].name, sizeof(rule->name)) == 0 &&
          memcmp(&rule->match, &before->rules[same].match, sizeof(rule->match)) == 0)
        break;
    if (same < before->count) {
      set->slots[i] = before->slots[same];
      rule->base = before->rules[same].base;
      continue;
    }
    while (used[next])
      next++;
    assert(next < STEER_SLOTS);
    used[next] = true;
    set->slots[i] = (uint16_t)next;
    rule->base = counted->slots[next];
  }
}

/* Makes set the rules in force. */
static int ruleset_publish(hy_steer *steer, const struct steer_ruleset *set) {
  uint32_t zero = 0;
  int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "steer_rules", sizeof(zero), sizeof(*set), 1, NULL);
  if (fd < 0)
    return fd;
  int err = bpf_map_update_elem(fd, &zero, set, BPF_ANY);
  if (!err)
    err = bpf_map_freeze(fd);
  if (!err)
    err = bpf_map_update_elem(steer->map_fds[STEER_MAP_GENERATIONS], &zero, &fd, BPF_ANY);
  close(fd);
  return err;
}

int steer_rules_init(hy_steer *steer, hy_steer_error *error) {
  struct steer_ruleset *set = calloc(1, sizeof(*set));
  if (!set)
    return steer_fail(error, -ENOMEM, "out of memory");
  set->generation = 1;
  int err = ruleset_publish(steer, set);
  free(set);
  if (err)
    return steer_fail(error, err, "cannot make the first, empty rule set: %s", strerror(-err));
  return 0;
}

static int rules_check(const hy_steer_rule *rules, uint32_t count, hy_steer_error *error) {
  if (count > STEER_RULES)
    return steer_fail(error, -E2BIG, "%u rules are more than the %d that one interface takes", count,
                      STEER_RULES);
  for (uint32_t i = 0; i < count; i++) {
    int err = rule_check(&rules[i], error);
    if (err)
      return err;
    for (uint32_t j = 0; j < i; j++)
      if (strcmp(rules[i].name, rules[j].name) == 0)
        return steer_fail(error, -EINVAL, "two rules are named '%s'", rules[i].name);
  }
  return 0;
}

static int rules_flip(hy_steer *steer, const hy_steer_rule *rules, uint32_t count, struct steer_ruleset *set,
                      struct steer_ruleset *before, struct steer_counters *counted) {
  int err = ruleset_read(steer, before);
  if (!err)
    err = counters_read(steer, counted);
  if (err)
    return err;
  uint16_t order[STEER_RULES];
  order_by_priority(rules, count, order);
  set->count = count;
  set->generation = before->generation + 1;
  for (uint32_t i = 0; i < count; i++)
    rule_build(set, i, &rules[order[i]]);
  slots_assign(set, before, counted);
  return ruleset_publish(steer, set);
}

int hy_steer_replace(hy_steer *steer, const hy_steer_rule *rules, uint32_t count, hy_steer_error *error) {
  int err = rules_check(rules, count, error);
  if (err)
    return err;
  int lock = -1;
  if (steer->directory[0]) {
    lock = steer_lock(steer->directory, error);
    if (lock < 0)
      return lock;
  }
  struct steer_ruleset *set = calloc(1, sizeof(*set));
  struct steer_ruleset *before = malloc(sizeof(*before));
  struct steer_counters *counted = malloc(sizeof(*counted));
  err = set && before && counted ? rules_flip(steer, rules, count, set, before, counted) : -ENOMEM;
  free(counted);
  free(before);
  free(set);
  steer_fd_close(&lock);
  if (err)
    return steer_fail(error, err, "cannot replace the steering rules: %s", strerror(-err));
  return 0;
}
