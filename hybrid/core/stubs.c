/* Temporary weak definitions: each goes when the real one lands. */
#include "core/hybrid.h"
#include <errno.h>
#define STUB __attribute__((weak))
STUB void hy_config_default(hy_config *config) {}
STUB int hy_shard_open(const hy_config *config, hy_shard **out) {
  return -ENOSYS;
}
STUB int hy_shard_open_served(const hy_config *config, hy_shard **out) {
  return -ENOSYS;
}
STUB int hy_shard_ready(hy_shard *shard) {
  return -ENOSYS;
}
STUB void hy_shard_close(hy_shard *shard) {}
STUB uint64_t hy_now(const hy_shard *shard) {
  return 0;
}
STUB int hy_clock_set(hy_shard *shard, uint64_t now_ns) {
  return -ENOSYS;
}
STUB int hy_sga_alloc(hy_shard *shard, size_t len_bytes, hy_sga *out) {
  return -ENOSYS;
}
STUB size_t hy_sga_max(const hy_shard *shard) {
  return 0;
}
STUB void hy_sga_free(hy_shard *shard, hy_sga *sga) {}
STUB int hy_sga_ref(hy_shard *shard, const hy_sga *sga, hy_sga *out) {
  return -ENOSYS;
}
STUB size_t hy_sga_bytes(const hy_sga *sga) {
  return 0;
}
STUB int hy_socket(hy_shard *shard, int type, hy_qd *out) {
  return -ENOSYS;
}
STUB int hy_bind(hy_shard *shard, hy_qd qd, const hy_addr *local) {
  return -ENOSYS;
}
STUB int hy_listen(hy_shard *shard, hy_qd qd, int backlog) {
  return -ENOSYS;
}
STUB int hy_local(hy_shard *shard, hy_qd qd, hy_addr *out) {
  return -ENOSYS;
}
STUB int hy_peer(hy_shard *shard, hy_qd qd, hy_addr *out) {
  return -ENOSYS;
}
STUB int hy_set_user(hy_shard *shard, hy_qd qd, void *user) {
  return -ENOSYS;
}
STUB int hy_accept(hy_shard *shard, hy_qd qd, hy_qt *qt) {
  return -ENOSYS;
}
STUB int hy_connect(hy_shard *shard, hy_qd qd, const hy_addr *peer, hy_qt *qt) {
  return -ENOSYS;
}
STUB int hy_push(hy_shard *shard, hy_qd qd, const hy_sga *sga, hy_qt *qt) {
  return -ENOSYS;
}
STUB int hy_pushto(hy_shard *shard, hy_qd qd, const hy_sga *sga, const hy_addr *peer, hy_qt *qt) {
  return -ENOSYS;
}
STUB int hy_pop(hy_shard *shard, hy_qd qd, hy_qt *qt) {
  return -ENOSYS;
}
STUB int hy_drain(hy_shard *shard, hy_qd qd, hy_qt *qt) {
  return -ENOSYS;
}
STUB int hy_cancel(hy_shard *shard, hy_qt qt) {
  return -ENOSYS;
}
STUB int hy_shutdown(hy_shard *shard, hy_qd qd) {
  return -ENOSYS;
}
STUB int hy_close(hy_shard *shard, hy_qd qd) {
  return -ENOSYS;
}
STUB int hy_abort(hy_shard *shard, hy_qd qd) {
  return -ENOSYS;
}
STUB int hy_wait_any(hy_shard *shard, hy_event *events, int max, int64_t timeout_ns) {
  return -ENOSYS;
}
STUB int hy_wait(hy_shard *shard, hy_qt qt, hy_event *event, int64_t timeout_ns) {
  return -ENOSYS;
}
STUB int hy_poll(hy_shard *shard) {
  return -ENOSYS;
}
STUB unsigned hy_stat_count(void) {
  return 0;
}
STUB const char *hy_stat_name(unsigned index) {
  return 0;
}
STUB const char *hy_stat_help(unsigned index) {
  return 0;
}
STUB uint64_t hy_stat(const hy_shard *shard, unsigned index) {
  return 0;
}
STUB int hy_host_create(hy_host **out) {
  return -ENOSYS;
}
STUB int hy_host_fd(const hy_host *host) {
  return -ENOSYS;
}
STUB void hy_host_close(hy_host *host) {}
STUB int hy_host_update(hy_host *host, const hy_host_link *links, unsigned nlinks, const hy_host_addr *addrs,
                        unsigned naddrs, const hy_host_route *routes, unsigned nroutes,
                        const hy_host_neigh *neighs, unsigned nneighs) {
  return -ENOSYS;
}
STUB int hy_shard_set_host(hy_shard *shard, const hy_host *host) {
  return -ENOSYS;
}
STUB int hy_shard_set_notice_fd(hy_shard *shard, int fd) {
  return -ENOSYS;
}
STUB int hy_afxdp_attach(hy_shard *shard, const hy_afxdp_config *config, hy_afxdp_obtained *obtained) {
  return -ENOSYS;
}
STUB uint64_t hy_next_deadline(hy_shard *shard) {
  return 0;
}
#include "core/device.h"
STUB struct arena *shard_arena(hy_shard *shard) {
  return 0;
}
STUB int shard_add_device(hy_shard *shard, struct hy_device *dev) {
  return -ENOSYS;
}
STUB struct hy_device *shard_device(const hy_shard *shard, uint32_t index) {
  return 0;
}
