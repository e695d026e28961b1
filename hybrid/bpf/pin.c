/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of pins: the lock, the staging directory, and taking down what is
 * ours and only that.
 */
#include "bpf/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/magic.h>

/* bpffs allows no dots in names, so neither ".new" nor "x.tmp". */
#define STAGING_PREFIX "new-"

/* Who holds the lock makes a few system calls under it; longer than this is somebody stopped. */
enum { LOCK_WAIT_MS_MAX = 10000, LOCK_STEP_MS = 5 };

static int path_join(char *out, const char *directory, const char *prefix, const char *name) {
  int length = snprintf(out, PATH_MAX, "%s/%s%s", directory, prefix, name);
  return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* "/a/b/c" to "/a/b" and "c". */
static int path_split(const char *path, char *parent, const char **name) {
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : 0;
  if (length == 0 || length >= PATH_MAX || slash[1] == '\0')
    return -EINVAL;
  memcpy(parent, path, length);
  parent[length] = '\0';
  *name = slash + 1;
  return 0;
}

int steer_lock(const char *directory, hy_steer_error *error) {
  char parent[PATH_MAX];
  const char *name;
  int err = path_split(directory, parent, &name);
  if (err)
    return steer_fail(error, err, "%s is no absolute path of a pin directory", directory);
  int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return steer_fail(error, -errno, "cannot open %s: %s", parent, strerror(errno));
  for (int waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited_ms += LOCK_STEP_MS) {
    err = -errno;
    if ((err != -EWOULDBLOCK && err != -EINTR) || waited_ms >= LOCK_WAIT_MS_MAX) {
      close(fd);
      return steer_fail(error, err == -EWOULDBLOCK ? -EBUSY : err,
                        "another process has held the lock on %s for %d s", parent, LOCK_WAIT_MS_MAX / 1000);
    }
    nanosleep(&(struct timespec){.tv_nsec = LOCK_STEP_MS * 1000000L}, NULL);
  }
  return fd;
}

static bool is_ours(const char *name) {
  static const char *const others[] = {"link",       "program", "program-new", "queues",
                                       "queues-new", "return",  "return-new",  "return-link"};
  for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
    if (strcmp(name, others[i]) == 0)
      return true;
  for (int i = 0; i < STEER_MAP_COUNT; i++)
    if (strcmp(name, steer_map_names[i]) == 0)
      return true;
  return false;
}

/* Calls visit for each name in the directory that isn't a dot; stops at a failure. */
static int each_name(const char *directory, int (*visit)(const char *directory, const char *name)) {
  DIR *dir = opendir(directory);
  if (!dir)
    return -errno;
  int err = 0;
  struct dirent *entry;
  while (!err && (entry = readdir(dir)))
    if (entry->d_name[0] != '.')
      err = visit(directory, entry->d_name);
  closedir(dir);
  return err;
}

static int refuse_foreign(const char *directory, const char *name) {
  (void)directory;
  return is_ours(name) ? 0 : -ENOTEMPTY;
}

int steer_unpin(const char *directory, const char *name) {
  char path[PATH_MAX];
  int err = path_join(path, directory, "", name);
  if (err)
    return err;
  return unlink(path) == 0 || errno == ENOENT ? 0 : -errno;
}

int steer_remove_locked(const char *directory, hy_steer_error *error) {
  int err = each_name(directory, refuse_foreign);
  if (err == -ENOTEMPTY)
    return steer_fail(error, err, "%s holds files that hybrid did not make; nothing was removed", directory);
  if (err)
    return steer_fail(error, err, "cannot read %s: %s", directory, strerror(-err));
  /*
   * Detached by word first: dropping the last reference would do it too, but some
   * time later, and the caller wants the interface free on return.
   */
  static const char *const links[] = {"link", "return-link"};
  for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
    int link_fd;
    if (steer_pin_open(directory, links[i], &link_fd) != 0)
      continue;
    err = bpf_link_detach(link_fd);
    close(link_fd);
    if (err)
      return steer_fail(error, err, "cannot detach the %s pinned in %s: %s", links[i], directory,
                        strerror(-err));
  }
  err = each_name(directory, steer_unpin);
  if (!err && rmdir(directory) != 0)
    err = -errno;
  if (err)
    return steer_fail(error, err, "cannot remove %s: %s", directory, strerror(-err));
  return 0;
}

static int remove_staging(const char *parent, const char *name) {
  if (strncmp(name, STAGING_PREFIX, strlen(STAGING_PREFIX)) != 0)
    return 0;
  char path[PATH_MAX];
  int err = path_join(path, parent, "", name);
  return err ? err : steer_remove_locked(path, NULL);
}

int steer_staging_make(const char *directory, char *out, hy_steer_error *error) {
  char parent[PATH_MAX];
  const char *name;
  int err = path_split(directory, parent, &name);
  if (!err)
    /* We hold the lock, so whoever made these is dead. */
    err = each_name(parent, remove_staging);
  if (!err)
    err = path_join(out, parent, STAGING_PREFIX, name);
  if (!err && mkdir(out, 0750) != 0)
    err = -errno;
  if (err)
    return steer_fail(error, err, "cannot make a directory for pins in %s: %s", parent, strerror(-err));
  return 0;
}

int steer_pin(int fd, const char *directory, const char *name, hy_steer_error *error) {
  char path[PATH_MAX];
  int err = path_join(path, directory, "", name);
  if (!err)
    err = bpf_obj_pin(fd, path);
  if (err)
    return steer_fail(error, err, "cannot pin %s/%s: %s", directory, name, strerror(-err));
  return 0;
}

int steer_pin_open(const char *directory, const char *name, int *fd) {
  char path[PATH_MAX];
  int err = path_join(path, directory, "", name);
  if (err)
    return err;
  int opened = bpf_obj_get(path);
  if (opened < 0)
    return opened;
  *fd = opened;
  return 0;
}

int hy_steer_remove(const char *directory, hy_steer_error *error) {
  int lock = steer_lock(directory, error);
  if (lock < 0)
    return lock;
  int err = steer_remove_locked(directory, error);
  close(lock);
  return err;
}

/*
 * Whether a list of mounts holds the one with this identifier; *first is the list's own first. They are
 * unique on the host, so one in common means one mount namespace. True also where it can't be told.
 */
static bool mount_listed(const char *mountinfo, long wanted, long *first) {
  FILE *file = fopen(mountinfo, "re");
  if (!file)
    return true;
  bool found = false;
  char *line = NULL;
  size_t capacity = 0;
  *first = -1;
  while (!found && getline(&line, &capacity, file) > 0) {
    long id = strtol(line, NULL, 10);
    if (*first < 0)
      *first = id;
    found = id == wanted;
  }
  free(line);
  fclose(file);
  return found;
}

/*
 * Whether a mount made now would be hidden from the host's other processes. (That
 * /proc/1/ns/mnt could be compared too, but reading it takes more privilege.)
 */
static bool mounts_are_private(void) {
  long first = -1, ignored;
  mount_listed("/proc/self/mountinfo", -1, &first);
  return first >= 0 && !mount_listed("/proc/1/mountinfo", first, &ignored);
}

int hy_steer_bpffs(const char *path, hy_steer_error *error) {
  struct statfs fs;
  if (statfs(path, &fs) != 0)
    return steer_fail(error, -errno, "cannot look at %s: %s", path, strerror(errno));
  if ((unsigned long)fs.f_type == BPF_FS_MAGIC)
    return 0;
  if (mounts_are_private())
    return steer_fail(error, -EXDEV,
                      "%s has no bpffs in this mount namespace, which is not the host's; pins made here "
                      "would vanish with it",
                      path);
  if (mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") != 0)
    return steer_fail(error, -errno, "cannot mount a bpffs at %s: %s", path, strerror(errno));
  return 1;
}
