/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of several frames: built to be sent, and summed when received. */
#include "tcp/chain.h"

#include "tcp/csum.h"

/* Adds bytes that lie `at` bytes into what is summed. */
static uint64_t sum_at(uint64_t sum, const uint8_t *p, uint32_t len, uint32_t at) {
  if (!(at & 1))
    return csum_add(sum, p, len);
  /* RFC 1071 section 2 (B): the other byte of each word, so the sum with its bytes swapped. */
  return csum_carry(sum, __builtin_bswap16((uint16_t)~csum_fold(csum_add(0, p, len))));
}

uint64_t chain_sum(const struct stack *st, const struct packet *p, uint32_t len) {
  const struct frame *f = frame_meta(st->arena, p->frame);
  uint32_t here = (uint32_t)f->off + f->len - p->l4_off, at = 0;
  const uint8_t *bytes = p->l4;
  uint64_t sum = 0;
  for (;;) {
    uint32_t some = here < len - at ? here : len - at;
    sum = sum_at(sum, bytes, some, at);
    at += some;
    if (at == len || !(f->flags & FRAME_MORE))
      return sum;
    bytes = frame_data(st->arena, f->more);
    f = frame_meta(st->arena, f->more);
    here = f->len;
  }
}

void chain_begin(struct stack *st, struct chain *chain, const struct link *link, uint32_t head) {
  const struct frame *f = frame_meta(st->arena, head);
  const struct hy_device *dev = link->dev;
  *chain = (struct chain){
      .head = head,
      .tail = head,
      .frames = 1,
      .frames_max = dev->packet_frames_max,
      .bytes = f->len,
      .room = dev->tx_room,
      .summed = !link_completes(link),
  };
}

uint16_t packet_leave_checksum(struct stack *st, uint32_t frame, const uint8_t *header, uint64_t pseudo,
                               uint16_t check_at) {
  struct frame *f = frame_meta(st->arena, frame);
  f->flags |= FRAME_CSUM_PARTIAL;
  f->csum_start = (uint16_t)(header - frame_base(st->arena, frame));
  f->csum_offset = check_at;
  st->stats->checksums_left++;
  return (uint16_t)~csum_fold(pseudo);
}

static void link_in(struct stack *st, struct chain *chain, uint32_t frame, bool open) {
  packet_link(st->arena, chain->tail, frame);
  chain->tail = frame;
  chain->frames++;
  chain->open = open;
}

static uint32_t add_copy(struct stack *st, struct chain *chain, const uint8_t *from, uint32_t len) {
  struct arena *arena = st->arena;
  uint32_t done = 0;
  while (done < len) {
    if (!chain->open || frame_meta(arena, chain->tail)->len == arena_frame_room(arena)) {
      uint32_t fresh = chain->frames < chain->frames_max ? frame_alloc(arena) : FRAME_NONE;
      if (fresh == FRAME_NONE)
        break;
      frame_meta(arena, fresh)->flags |= FRAME_IN_DEVICE;
      link_in(st, chain, fresh, true);
    }
    struct frame *f = frame_meta(arena, chain->tail);
    uint32_t room = arena_frame_room(arena) - f->len, some = len - done < room ? len - done : room;
    memcpy(frame_data(arena, chain->tail) + f->len, from + done, some);
    f->len = (uint16_t)(f->len + some);
    done += some;
  }
  st->stats->tcp_out_copied_bytes += done;
  return done;
}

uint32_t chain_add(struct stack *st, struct chain *chain, uint32_t frame, uint32_t off, uint32_t len,
                   bool share) {
  struct frame *f = frame_meta(st->arena, frame);
  const uint8_t *bytes = frame_base(st->arena, frame) + off;
  uint32_t added = len;
  if (share && len >= CHAIN_SHARE_MIN && !(f->flags & FRAME_SEND_FLAGS) && off >= chain->room &&
      chain->frames < chain->frames_max) {
    frame_ref(st->arena, frame);
    f->off = (uint16_t)off;
    f->len = (uint16_t)len;
    f->flags |= FRAME_IN_DEVICE;
    link_in(st, chain, frame, false);
  } else {
    added = add_copy(st, chain, bytes, len);
  }
  if (chain->summed)
    chain->sum = sum_at(chain->sum, bytes, added, chain->bytes);
  chain->bytes += added;
  return added;
}
