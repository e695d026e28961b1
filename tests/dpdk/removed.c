/* SPDX-License-Identifier: Apache-2.0 */
/* The library that is missing once `without-library` has been copied away from it. */
int rte_of_another_release(void);

__attribute__((visibility("default"))) int rte_of_another_release(void) {
  return 0;
}
