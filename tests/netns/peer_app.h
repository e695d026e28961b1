/* SPDX-License-Identifier: Apache-2.0 */
/* Where peer_app.c has its shard from: each program made of it brings its own. */
#ifndef HYBRID_TESTS_PEER_APP_H
#define HYBRID_TESTS_PEER_APP_H

#include "hybrid.h"

int peer_app_shard(int argc, char **argv, hy_shard **out);

#endif
