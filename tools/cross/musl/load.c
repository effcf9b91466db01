// Loads an addon with all its symbols bound, and asks it for its Node-API version: what musl's loader can say without a
// Node. tools/proof.mjs adds a file that defines whatever the addon expects of Node.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

int main(int count, char** arguments) {
  void* addon = count == 2 ? dlopen(arguments[1], RTLD_NOW) : NULL;
  void* init = addon == NULL ? NULL : dlsym(addon, "napi_register_module_v1");
  int32_t (*version)(void) = addon == NULL ? NULL : dlsym(addon, "node_api_module_get_api_version_v1");
  if (init == NULL || version == NULL) {
    const char* reason = dlerror();
    fprintf(stderr, "%s\n", reason == NULL ? "usage: load FILE" : reason);
    return 1;
  }
  printf("loaded, Node-API %d\n", version());
  return 0;
}
