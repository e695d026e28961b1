#include "hybrid.h"
#include <stdio.h>
int main(void) {
  hy_config config;
  hy_config_default(&config);
  puts("not yet");
  return 0;
}
