/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt callbacks, wrapped. gate.h says why. */
#include "dpdk/gate.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>

#include <rte_interrupts.h>

enum { CALLBACKS = 512 };

atomic_uint gates_closed;
static struct gate gates[GATES];

struct gate *gate_take(void) {
  for (unsigned i = 0; i < GATES; i++)
    if (!gates[i].taken) {
      gates[i].taken = true;
      return &gates[i];
    }
  return NULL;
}

void gate_release(struct gate *gate) {
  gate->taken = false;
}

/* ---- the wrapped callbacks --------------------------------------------------------------------- */

struct callback {
  const struct rte_intr_handle *handle;
  rte_intr_callback_fn call; /* NULL: unused */
  rte_intr_unregister_callback_fn gone;
  void *arg;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct callback callbacks[CALLBACKS];

static void wrapped(void *arg) {
  const struct callback *callback = arg;
  rte_intr_callback_fn call = callback->call;
  void *its = callback->arg;
  atomic_fetch_add(&gates_closed, 1);
  for (unsigned i = 0; i < GATES; i++)
    while (atomic_load(&gates[i].busy))
      sched_yield();
  if (call != NULL)
    call(its);
  atomic_fetch_sub(&gates_closed, 1);
}

static void wrapped_gone(struct rte_intr_handle *handle, void *arg) {
  struct callback *callback = arg;
  rte_intr_unregister_callback_fn gone = callback->gone;
  void *its = callback->arg;
  callback->call = NULL;
  if (gone != NULL)
    gone(handle, its);
}

static struct callback *callback_find(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
                                      const void *arg) {
  for (unsigned i = 0; i < CALLBACKS; i++) {
    struct callback *c = &callbacks[i];
    if (c->call == call && (call == NULL || (c->handle == handle && (arg == (void *)-1 || c->arg == arg))))
      return c;
  }
  return NULL;
}

static void *real(const char *name) {
  return dlsym(RTLD_NEXT, name);
}

__attribute__((visibility("default"))) int rte_intr_callback_register(const struct rte_intr_handle *handle,
                                                                      rte_intr_callback_fn call, void *arg) {
  int (*next)(const struct rte_intr_handle *, rte_intr_callback_fn, void *) = real(__func__);
  pthread_mutex_lock(&lock);
  struct callback *c = call != NULL ? callback_find(NULL, NULL, NULL) : NULL;
  if (c != NULL)
    *c = (struct callback){.handle = handle, .call = call, .arg = arg};
  pthread_mutex_unlock(&lock);
  if (c == NULL)
    return call == NULL ? -EINVAL : -ENOMEM;
  int rc = next(handle, wrapped, c);
  if (rc < 0)
    c->call = NULL;
  return rc;
}

/* As EAL does it: how many were taken out, or -EAGAIN while the callback runs, and then it stays. */
static int take_out(const char *name, const struct rte_intr_handle *handle, rte_intr_callback_fn call,
                    void *arg) {
  int (*next)(const struct rte_intr_handle *, rte_intr_callback_fn, void *) = real(name);
  int removed = 0;
  pthread_mutex_lock(&lock);
  struct callback *c = callback_find(handle, call, arg);
  pthread_mutex_unlock(&lock);
  if (c == NULL)
    return next(handle, call, arg);
  while (c != NULL) {
    int rc = next(handle, wrapped, c);
    if (rc < 0)
      return removed > 0 ? removed : rc;
    removed += rc;
    c->call = NULL;
    pthread_mutex_lock(&lock);
    c = arg == (void *)-1 ? callback_find(handle, call, arg) : NULL;
    pthread_mutex_unlock(&lock);
  }
  return removed;
}

__attribute__((visibility("default"))) int
rte_intr_callback_unregister(const struct rte_intr_handle *handle, rte_intr_callback_fn call, void *arg) {
  return take_out(__func__, handle, call, arg);
}

__attribute__((visibility("default"))) int
rte_intr_callback_unregister_sync(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
                                  void *arg) {
  return take_out(__func__, handle, call, arg);
}

__attribute__((visibility("default"))) int
rte_intr_callback_unregister_pending(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
                                     void *arg, rte_intr_unregister_callback_fn gone) {
  int (*next)(const struct rte_intr_handle *, rte_intr_callback_fn, void *, rte_intr_unregister_callback_fn) =
      real(__func__);
  pthread_mutex_lock(&lock);
  struct callback *c = callback_find(handle, call, arg);
  if (c != NULL)
    c->gone = gone;
  pthread_mutex_unlock(&lock);
  return c == NULL ? next(handle, call, arg, gone) : next(handle, wrapped, c, wrapped_gone);
}
