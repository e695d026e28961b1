/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds and loads the DPDK plugin when it is first asked for. This file is part of libhybrid and knows
 * nothing of DPDK.
 *
 * The plugin is loaded with RTLD_GLOBAL, which puts its symbols in front of DPDK's for every driver that EAL
 * loads later. That is how its own rte_panic and rte_exit (eal.c) are the ones that are called.
 */
#include "core/error.h"
#include "dpdk/dpdk.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct dpdk_plugin *loaded; /* stays loaded: EAL can be started only once */

/* Beside the object that this code is in, or where HYBRID_DPDK_PLUGIN says. */
static int plugin_path(char path[PATH_MAX]) {
  const char *named = secure_getenv("HYBRID_DPDK_PLUGIN");
  if (named != NULL && named[0] != '\0')
    return snprintf(path, PATH_MAX, "%s", named) < PATH_MAX ? 0 : -ENAMETOOLONG;
  Dl_info self;
  char real[PATH_MAX];
  if (dladdr(&loaded, &self) == 0 || self.dli_fname == NULL || realpath(self.dli_fname, real) == NULL)
    return -ENOENT;
  char *slash = strrchr(real, '/');
  if (slash != NULL)
    *slash = '\0';
  return snprintf(path, PATH_MAX, "%s/%s", real, DPDK_PLUGIN_FILE) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* dlopen's own words end with the reason; which of DPDK's libraries it was stands in front. */
static int explain_dlopen(const char *path, const char *said) {
  if (access(path, R_OK) < 0)
    return error_detail_set(
        -ENOENT,
        "hybrid was built without DPDK (there is no %s): install Debian's libdpdk-dev and "
        "build it again",
        path);
  if (strstr(said, "cannot open shared object file") != NULL)
    return error_detail_set(-ENOENT,
                            "DPDK is not installed, or not the version that hybrid was built with "
                            "(%s): install Debian's dpdk of that version (apt install dpdk)",
                            said);
  return error_detail_set(
      -ELIBBAD,
      "the DPDK plugin does not fit the DPDK that is installed (%s): install Debian's dpdk "
      "22.11, or build hybrid again with its libdpdk-dev",
      said);
}

static int plugin_load(const struct dpdk_plugin **out) {
  char path[PATH_MAX];
  int rc = plugin_path(path);
  if (rc < 0)
    return error_detail_set(
        rc, "it can't be said where libhybrid lies: name the DPDK plugin in HYBRID_DPDK_PLUGIN");
  /* NODELETE: EAL's threads go on running its code whatever happens to libhybrid. */
  void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  if (handle == NULL) {
    const char *said = dlerror();
    return explain_dlopen(path, said != NULL ? said : "no reason given");
  }
  const struct dpdk_plugin *plugin = dlsym(handle, DPDK_PLUGIN_SYMBOL);
  static const struct dpdk_plugin_abi ours = DPDK_PLUGIN_ABI;
  if (plugin == NULL || memcmp(&plugin->abi, &ours, sizeof ours) != 0)
    return error_detail_set(-ELIBBAD,
                            "%s belongs to another build of hybrid: install both from the same build", path);
  *out = plugin;
  return 0;
}

static int plugin_get(const struct dpdk_plugin **out) {
  pthread_mutex_lock(&lock);
  int rc = loaded != NULL ? 0 : plugin_load(&loaded);
  *out = loaded;
  pthread_mutex_unlock(&lock);
  return rc;
}

int hy_dpdk_attach(hy_shard *shard, const hy_dpdk_config *config, hy_dpdk_obtained *obtained) {
  error_detail_clear();
  if (config->struct_size != sizeof *config || config->port == NULL || config->port[0] == '\0')
    return error_detail_set(
        -EINVAL, "the configuration names no DPDK port, or is of another size than this library's");
  struct arena *arena = shard_arena(shard);
  if (arena->prefix != HY_DPDK_PREFIX)
    return error_detail_set(-EINVAL, "the shard was opened with frame_prefix_bytes = %u: DPDK needs %d there",
                            arena->prefix, HY_DPDK_PREFIX);
  const struct dpdk_plugin *plugin;
  int rc = plugin_get(&plugin);
  if (rc < 0)
    return rc;
  char detail[DPDK_DETAIL_BYTES] = "";
  hy_dpdk_obtained got = {0};
  struct hy_device *dev;
  rc = plugin->open(arena, config, &got, &dev, detail);
  if (rc < 0)
    return error_detail_set(rc, "%s", detail);
  rc = shard_add_device(shard, dev);
  if (rc < 0) {
    dev->ops->close(dev);
    return rc;
  }
  if (obtained != NULL)
    *obtained = got;
  return 0;
}

int hy_dpdk_stop(const char *name) {
  pthread_mutex_lock(&lock);
  const struct dpdk_plugin *plugin = loaded;
  pthread_mutex_unlock(&lock);
  return plugin == NULL ? -ENOENT : plugin->stop(name);
}
