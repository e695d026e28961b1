/* SPDX-License-Identifier: Apache-2.0 */
/* Plugins that don't fit, for test_errors.py: of another build, of another DPDK, without its libraries. */
#include "dpdk/dpdk.h"

#ifdef OTHER_BUILD
__attribute__((visibility("default"))) const struct dpdk_plugin hybrid_dpdk_plugin = {.abi = {.number = 999}};
#else
int rte_of_another_release(void); /* undefined, or in a library that isn't there */
int (*const used)(void);
__attribute__((visibility("default"))) int (*const used)(void) = rte_of_another_release;
#endif
