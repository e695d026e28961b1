/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a steering: attach, open, upgrade, detach.
 *
 * Attach, and what a kill -9 leaves after each step:
 *
 *     load, fill the maps            nothing: descriptors die with the process
 *     make new-<name>/, pin maps     files that the next attach removes
 *     attach by bpf_link             nothing: the link is still a descriptor
 *     pin programs and link there    attached without rules: every frame passes
 *     rename to <name>/              complete
 */
#include "bpf/internal.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>

static_assert((int)STEER_IFNAME_BYTES == IFNAMSIZ, "the kernel's");
static_assert(sizeof((hy_steer_info){0}.note) == sizeof((struct steer_meta){0}.note), "copied as is");

/* Receive queues, 1 where the driver doesn't say. */
static uint16_t queues_of(const char *ifname) {
  struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
  struct ifreq request = {.ifr_data = (void *)&channels};
  memcpy(request.ifr_name, ifname, IFNAMSIZ);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return 1;
  int err = ioctl(fd, SIOCETHTOOL, &request);
  close(fd);
  uint32_t queues = err ? 1 : channels.rx_count + channels.combined_count;
  return queues == 0 ? 1 : queues > UINT16_MAX ? UINT16_MAX : (uint16_t)queues;
}

static int meta_fill(struct steer_meta *meta, uint32_t ifindex, int mode, hy_steer_error *error) {
  memset(meta, 0, sizeof(*meta));
  meta->magic = STEER_MAGIC;
  meta->major = STEER_MAJOR;
  meta->minor = STEER_MINOR;
  meta->ifindex = ifindex;
  meta->requested = (uint8_t)mode;
  if (!if_indextoname(ifindex, meta->ifname))
    return steer_fail(error, -ENODEV, "there is no interface %u in this network namespace", ifindex);
  struct stat netns;
  if (stat("/proc/thread-self/ns/net", &netns) != 0)
    return steer_fail(error, -errno, "cannot tell the network namespace: %s", strerror(errno));
  meta->netns = netns.st_ino;
  meta->queues = queues_of(meta->ifname);
  return 0;
}

/* -EBUSY with a sentence that names the program, if there is one. */
static int refuse_occupied(const struct steer_meta *meta, hy_steer_error *error) {
  hy_steer_xdp xdp;
  int err = hy_steer_inspect(meta->ifindex, &xdp, error);
  if (err || !xdp.program_id)
    return err;
  char words[128];
  steer_xdp_describe(&xdp, words, sizeof(words));
  return steer_fail(error, -EBUSY, "%s already has the XDP program %s", meta->ifname, words);
}

static int link_create(hy_steer *steer, uint32_t flags) {
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
  int fd = bpf_link_create(steer->program_fd, (int)steer->meta.ifindex, BPF_XDP, &options);
  if (fd < 0)
    return fd;
  steer->link_fd = fd;
  return 0;
}

static bool somebody_else(int err) {
  return err == -EBUSY || err == -EEXIST;
}

/*
 * Loads the programs again, of the other kind. The devmap belongs to programs of the kind that was loaded
 * first (the kernel refuses others), so they get a new one.
 */
static int reload(hy_steer *steer, const char *object, bool fragments, hy_steer_error *error) {
  steer_fd_close(&steer->map_fds[STEER_MAP_PORTS]);
  return steer_load_object(steer, object, fragments, error);
}

/* In one mode: a driver that refuses a program which takes fragments may take one that doesn't. */
static int attach_as(hy_steer *steer, const char *object, uint32_t flags, hy_steer_error *error) {
  int err = link_create(steer, flags);
  if (err && !somebody_else(err) && steer->fragments) {
    err = reload(steer, object, false, error);
    if (!err)
      err = link_create(steer, flags);
  }
  return err;
}

static int attach_link(hy_steer *steer, const char *object, hy_steer_error *error) {
  struct steer_meta *meta = &steer->meta;
  const bool best = steer->fragments;
  int err = -EOPNOTSUPP;
  if (meta->requested != HY_XDP_GENERIC) {
    err = attach_as(steer, object, XDP_FLAGS_DRV_MODE, error);
    meta->obtained = HY_XDP_NATIVE;
  }
  if (err && !somebody_else(err) && meta->requested != HY_XDP_NATIVE) {
    if (meta->requested == HY_XDP_AUTO)
      snprintf(meta->note, sizeof(meta->note), "the driver refused native mode: %s", strerror(-err));
    err = steer->fragments == best ? 0 : reload(steer, object, best, error);
    if (!err)
      err = attach_as(steer, object, XDP_FLAGS_SKB_MODE, error);
    meta->obtained = HY_XDP_GENERIC;
  }
  meta->fragments = steer->fragments;
  if (!err)
    return 0;
  /* Somebody may have been quicker than we after our look: then the program is named after all. */
  if (somebody_else(err)) {
    int occupied = refuse_occupied(meta, error);
    if (occupied)
      return occupied;
  }
  return steer_fail(error, err, "%s refuses the XDP program in %s mode: %s", meta->ifname,
                    meta->obtained == HY_XDP_NATIVE ? "native" : "generic", strerror(-err));
}

static int meta_write(const hy_steer *steer, hy_steer_error *error) {
  uint32_t zero = 0;
  int err = bpf_map_update_elem(steer->map_fds[STEER_MAP_META], &zero, &steer->meta, BPF_ANY);
  return err ? steer_fail(error, err, "cannot write the meta map: %s", strerror(-err)) : 0;
}

static int pin_maps(hy_steer *steer, const char *staging, hy_steer_error *error) {
  int err = 0;
  for (int i = 0; !err && i < STEER_MAP_COUNT; i++)
    err = steer_pin(steer->map_fds[i], staging, steer_map_names[i], error);
  return err;
}

static int pin_attached(hy_steer *steer, const char *staging, hy_steer_error *error) {
  int err = steer_pin(steer->program_fd, staging, "program", error);
  if (!err)
    err = steer_pin(steer->queues_fd, staging, "queues", error);
  if (!err)
    err = steer_pin(steer->return_fd, staging, "return", error);
  if (!err)
    err = steer_pin(steer->link_fd, staging, "link", error);
  return err;
}

static int link_info(int link_fd, struct bpf_link_info *info) {
  memset(info, 0, sizeof(*info));
  uint32_t length = sizeof(*info);
  return bpf_obj_get_info_by_fd(link_fd, info, &length);
}

/* Removes what is pinned there if it steers nothing any more; -EEXIST if it does. */
static int clear_directory(const char *directory, hy_steer_error *error) {
  struct stat st;
  if (lstat(directory, &st) != 0)
    return errno == ENOENT ? 0
                           : steer_fail(error, -errno, "cannot look at %s: %s", directory, strerror(errno));
  int fd;
  struct bpf_link_info info;
  if (steer_pin_open(directory, "link", &fd) == 0) {
    int err = link_info(fd, &info);
    close(fd);
    if (err)
      return steer_fail(error, err, "cannot ask about the link pinned in %s: %s", directory, strerror(-err));
    if (info.xdp.ifindex)
      return steer_fail(error, -EEXIST, "%s is pinned already and steers interface %u", directory,
                        info.xdp.ifindex);
  }
  return steer_remove_locked(directory, error);
}

static int attach_locked(hy_steer *steer, const char *object, const char *directory, hy_steer_error *error) {
  char staging[PATH_MAX];
  int err = clear_directory(directory, error);
  if (!err)
    err = steer_staging_make(directory, staging, error);
  if (err)
    return err;
  err = refuse_occupied(&steer->meta, error);
  if (!err)
    err = steer_load_best(steer, object, error);
  if (!err)
    err = steer_rules_init(steer, error);
  if (!err)
    err = attach_link(steer, object, error);
  if (!err) /* not before: attaching may have made others */
    err = pin_maps(steer, staging, error);
  if (!err)
    err = meta_write(steer, error);
  if (!err)
    err = pin_attached(steer, staging, error);
  if (!err && rename(staging, directory) != 0)
    err = steer_fail(error, -errno, "cannot move %s into place: %s", staging, strerror(errno));
  if (err)
    steer_remove_locked(staging, NULL);
  return err;
}

/* A new handle for directory; NULL, with *err set. */
static hy_steer *handle_make(const char *directory, int *err, hy_steer_error *error) {
  size_t length = strlen(directory);
  if (length >= PATH_MAX) {
    *err = steer_fail(error, -ENAMETOOLONG, "the path of the pin directory is too long");
    return NULL;
  }
  hy_steer *steer = malloc(sizeof(*steer));
  if (!steer) {
    *err = steer_fail(error, -ENOMEM, "out of memory");
    return NULL;
  }
  steer_init(steer);
  memcpy(steer->directory, directory, length + 1);
  return steer;
}

int hy_steer_attach(uint32_t ifindex, const char *object, int mode, const char *directory, hy_steer **out,
                    hy_steer_error *error) {
  if (mode < HY_XDP_AUTO || mode > HY_XDP_GENERIC)
    return steer_fail(error, -EINVAL, "there is no XDP mode %d", mode);
  int err = 0;
  hy_steer *steer = handle_make(directory, &err, error);
  if (!steer)
    return err;
  err = meta_fill(&steer->meta, ifindex, mode, error);
  if (err)
    goto close_handle;
  int lock = steer_lock(directory, error);
  err = lock < 0 ? lock : attach_locked(steer, object, directory, error);
  steer_fd_close(&lock);
  if (err)
    goto close_handle;
  *out = steer;
  return 0;

close_handle:
  hy_steer_close(steer);
  return err;
}

static int meta_read(hy_steer *steer, hy_steer_error *error) {
  uint32_t zero = 0;
  const char *directory = steer->directory;
  struct bpf_map_info info = {0};
  uint32_t length = sizeof(info);
  int err = bpf_obj_get_info_by_fd(steer->map_fds[STEER_MAP_META], &info, &length);
  if (err)
    return steer_fail(error, err, "cannot ask about the map pinned as %s/meta: %s", directory,
                      strerror(-err));
  /* Before the kernel copies a value of the map's own size over ours. */
  if (info.value_size != sizeof(steer->meta))
    return steer_fail(error, -EPROTO, "the maps in %s were made by another version of hybrid", directory);
  err = bpf_map_lookup_elem(steer->map_fds[STEER_MAP_META], &zero, &steer->meta);
  if (err)
    return steer_fail(error, err, "cannot read %s/meta: %s", directory, strerror(-err));
  if (steer->meta.magic != STEER_MAGIC || steer->meta.major != STEER_MAJOR)
    return steer_fail(error, -EPROTO, "the maps in %s have layout %u.%u and this build knows %d", directory,
                      steer->meta.major, steer->meta.minor, STEER_MAJOR);
  steer->meta.ifname[sizeof(steer->meta.ifname) - 1] = '\0';
  steer->meta.note[sizeof(steer->meta.note) - 1] = '\0';
  return 0;
}

static int open_pins(hy_steer *steer, hy_steer_error *error) {
  const char *directory = steer->directory, *missing = NULL;
  int err = 0;
  for (int i = 0; !err && i < STEER_MAP_COUNT; i++) {
    err = steer_pin_open(directory, steer_map_names[i], &steer->map_fds[i]);
    missing = steer_map_names[i];
    if (err == -ENOENT && i >= STEER_MAPS_FIRST && steer->meta.minor < 1)
      err = 0;
    if (!err && i == STEER_MAP_META) {
      err = meta_read(steer, error);
      if (err)
        return err;
    }
  }
  if (!err)
    err = steer_pin_open(directory, missing = "link", &steer->link_fd);
  if (!err)
    err = steer_pin_open(directory, missing = "queues", &steer->queues_fd);
  if (!err) {
    err = steer_pin_open(directory, missing = "return", &steer->return_fd);
    if (err == -ENOENT && steer->meta.minor < 1)
      err = 0;
  }
  if (err)
    return steer_fail(error, err, "cannot open %s/%s: %s", directory, missing, strerror(-err));
  struct bpf_link_info info;
  err = link_info(steer->link_fd, &info);
  if (err)
    return steer_fail(error, err, "cannot ask about the link pinned in %s: %s", directory, strerror(-err));
  /* The link's word, not the pin's: an upgrade that was killed may have left the pin behind. */
  int fd = bpf_prog_get_fd_by_id(info.prog_id);
  if (fd < 0)
    return steer_fail(error, fd, "cannot open BPF program %u: %s", info.prog_id, strerror(-fd));
  steer->program_fd = fd;
  return 0;
}

int hy_steer_open(const char *directory, hy_steer **out, hy_steer_error *error) {
  int err = 0;
  hy_steer *steer = handle_make(directory, &err, error);
  if (!steer)
    return err;
  struct stat st;
  if (lstat(directory, &st) != 0)
    err = steer_fail(error, -errno, "nothing is pinned as %s: %s", directory, strerror(errno));
  if (!err)
    err = open_pins(steer, error);
  if (err) {
    hy_steer_close(steer);
    return err;
  }
  *out = steer;
  return 0;
}

/* Puts fd in the place of the pin `name`, so that there always is one. */
static int pin_replace(int fd, const char *directory, const char *name, const char *temporary,
                       hy_steer_error *error) {
  char from[PATH_MAX], to[PATH_MAX];
  int length = snprintf(to, sizeof(to), "%s/%s", directory, name);
  int longer = snprintf(from, sizeof(from), "%s/%s", directory, temporary);
  if (length < 0 || longer < 0 || longer >= (int)sizeof(from))
    return steer_fail(error, -ENAMETOOLONG, "the path of %s is too long", directory);
  unlink(from); /* of an upgrade that was killed */
  int err = steer_pin(fd, directory, temporary, error);
  if (!err && rename(from, to) != 0)
    err = steer_fail(error, -errno, "cannot replace %s: %s", to, strerror(errno));
  return err;
}

/* Maps that the layout has got since steer was pinned become steer's. */
static int maps_adopt(hy_steer *steer, hy_steer *fresh, hy_steer_error *error) {
  for (int i = STEER_MAPS_FIRST; i < STEER_MAP_COUNT; i++) {
    if (steer->map_fds[i] >= 0)
      continue;
    int err = steer_pin(fresh->map_fds[i], steer->directory, steer_map_names[i], error);
    if (err)
      return err;
    steer->map_fds[i] = fresh->map_fds[i];
    fresh->map_fds[i] = -1;
  }
  return 0;
}

static int upgrade_locked(hy_steer *steer, const char *object, hy_steer_error *error) {
  hy_steer fresh;
  steer_init(&fresh);
  for (int i = 0; i < STEER_MAP_COUNT; i++)
    fresh.map_fds[i] = steer->map_fds[i];
  /* Fragments stay as they are: a driver that took them takes them still, and the tag does not tell. */
  int err = steer_load_object(&fresh, object, steer->meta.fragments, error);
  for (int i = 0; i < STEER_MAP_COUNT; i++)
    if (steer->map_fds[i] >= 0)
      fresh.map_fds[i] = -1; /* lent, not given */
  if (err)
    goto out;
  uint8_t running[HY_STEER_TAG_BYTES], shipped[HY_STEER_TAG_BYTES];
  uint32_t id;
  err = steer_tag(steer->program_fd, running, &id);
  if (!err)
    err = steer_tag(fresh.program_fd, shipped, &id);
  if (err) {
    steer_fail(error, err, "cannot compare the steering programs: %s", strerror(-err));
    goto out;
  }
  if (memcmp(running, shipped, sizeof(running)) == 0)
    goto out;
  err = maps_adopt(steer, &fresh, error);
  if (err)
    goto out;
  LIBBPF_OPTS(bpf_link_update_opts, options, .flags = BPF_F_REPLACE,
              .old_prog_fd = (uint32_t)steer->program_fd);
  err = bpf_link_update(steer->link_fd, fresh.program_fd, &options);
  if (err) {
    steer_fail(error, err, "cannot exchange the steering program of %s: %s", steer->meta.ifname,
               strerror(-err));
    goto out;
  }
  err = pin_replace(fresh.program_fd, steer->directory, "program", "program-new", error);
  if (!err)
    err = pin_replace(fresh.queues_fd, steer->directory, "queues", "queues-new", error);
  if (!err)
    err = pin_replace(fresh.return_fd, steer->directory, "return", "return-new", error);
  if (!err) {
    steer->meta.minor = STEER_MINOR;
    err = meta_write(steer, error);
  }
  if (!err)
    err = 1;
  /* The new programs become the handle's, the old ones go with fresh. */
  hy_steer old = *steer;
  steer->program_fd = fresh.program_fd;
  steer->queues_fd = fresh.queues_fd;
  steer->return_fd = fresh.return_fd;
  fresh.program_fd = old.program_fd;
  fresh.queues_fd = old.queues_fd;
  fresh.return_fd = old.return_fd;
out:
  steer_fini(&fresh);
  return err;
}

int hy_steer_upgrade(hy_steer *steer, const char *object, hy_steer_error *error) {
  if (steer->link_fd < 0)
    return steer_fail(error, -ENOTCONN, "this steering program is attached to nothing");
  int lock = steer_lock(steer->directory, error);
  if (lock < 0)
    return lock;
  int err = upgrade_locked(steer, object, error);
  close(lock);
  return err;
}

/* Whether what is pinned in the handle's directory is still the handle's link. */
static bool still_pinned(const hy_steer *steer) {
  int fd;
  if (steer_pin_open(steer->directory, "link", &fd) != 0)
    return false;
  struct bpf_link_info own, pinned;
  bool same = link_info(steer->link_fd, &own) == 0 && link_info(fd, &pinned) == 0 && own.id == pinned.id;
  close(fd);
  return same;
}

int hy_steer_detach(hy_steer *steer, hy_steer_error *error) {
  if (steer->link_fd < 0)
    return 0;
  int lock = steer_lock(steer->directory, error);
  if (lock < 0)
    return lock;
  int err = still_pinned(steer) ? steer_remove_locked(steer->directory, error) : 0;
  close(lock);
  return err;
}

int hy_steer_info_get(const hy_steer *steer, hy_steer_info *out) {
  const struct steer_meta *meta = &steer->meta;
  memset(out, 0, sizeof(*out));
  out->netns = meta->netns;
  out->requested = meta->requested;
  out->obtained = meta->obtained;
  out->queues = meta->queues;
  out->major = meta->major;
  out->minor = meta->minor;
  memcpy(out->ifname, meta->ifname, sizeof(out->ifname));
  memcpy(out->note, meta->note, sizeof(out->note));
  out->fragments = meta->fragments;
  int err = steer_tag(steer->program_fd, out->tag, &out->program_id);
  if (err || steer->link_fd < 0)
    return err;
  struct bpf_link_info info;
  err = link_info(steer->link_fd, &info);
  if (err)
    return err;
  out->link_id = info.id;
  out->ifindex = info.xdp.ifindex;
  return 0;
}
