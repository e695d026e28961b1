/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backend in a shared object of its own (a plugin) may use of libhybrid beside hybrid.h: functions
 * marked HY_PLUGIN. They are no public interface: both are built together, and a plugin says
 * for which build it is.
 */
#ifndef HYBRID_CORE_PLUGIN_H
#define HYBRID_CORE_PLUGIN_H

#include "core/hybrid.h"

#define HY_PLUGIN __attribute__((visibility("default")))

#endif
