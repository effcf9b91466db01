// Lets a Node that was linked in Alpine run beside Debian's musl package, which has no C++ runtime: Debian's own
// libstdc++ and libgcc_s, made for glibc, need what stands below and nothing else that musl lacks. Only tools/proof.mjs
// uses this; the addon under test brings its own C++ runtime and sees none of it.
#define _GNU_SOURCE
#include <link.h>
#include <locale.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

char __libc_single_threaded = 0;

uint32_t arc4random(void) {
  uint32_t value = 0;
  getrandom(&value, sizeof value, 0);
  return value;
}

size_t __strftime_l(char* into, size_t size, const char* format, const struct tm* time, locale_t locale) {
  return strftime_l(into, size, format, time, locale);
}

// libgcc_s has these itself, under a version that musl's loader does not look for.
unsigned __cpu_model[4];
int __cpu_indicator_init(void) { return 0; }

// ---- locales: libstdc++ reads character tables from glibc's structure; musl's fits into the beginning of it ---------

struct glibc_locale {
  void* categories[13];
  const unsigned short* classes;
  const int32_t* lower;
  const int32_t* upper;
  const char* names[13];
};

#define MUSL_LOCALE_BYTES (6 * sizeof(void*))

extern const unsigned short** __ctype_b_loc(void);
extern const int32_t** __ctype_tolower_loc(void);
extern const int32_t** __ctype_toupper_loc(void);

locale_t __newlocale(int mask, const char* name, locale_t base) {
  (void)base;
  locale_t musl = newlocale(mask, name, (locale_t)0);
  struct glibc_locale* locale = musl == NULL ? NULL : calloc(1, sizeof *locale);
  if (locale == NULL) return NULL;
  memcpy(locale, musl, MUSL_LOCALE_BYTES);
  locale->classes = *__ctype_b_loc();
  locale->lower = *__ctype_tolower_loc();
  locale->upper = *__ctype_toupper_loc();
  for (int i = 0; i < 13; i++) locale->names[i] = "C";
  return (locale_t)locale;
}

locale_t __duplocale(locale_t locale) {
  struct glibc_locale* copy = malloc(sizeof *copy);
  return copy == NULL ? NULL : memcpy(copy, locale, sizeof *copy);
}

void __freelocale(locale_t locale) { (void)locale; }

// ---- destructors of thread-local objects ----------------------------------------------------------------------------

struct destructor {
  void (*run)(void*);
  void* object;
  struct destructor* next;
};

static pthread_key_t destructors;
static pthread_once_t destructors_once = PTHREAD_ONCE_INIT;

static void run_destructors(void* first) {
  for (struct destructor* each = first; each != NULL;) {
    struct destructor* next = each->next;
    each->run(each->object);
    free(each);
    each = next;
  }
}

static void make_destructors(void) { pthread_key_create(&destructors, run_destructors); }

int __cxa_thread_atexit_impl(void (*run)(void*), void* object, void* library) {
  (void)library;
  pthread_once(&destructors_once, make_destructors);
  struct destructor* added = malloc(sizeof *added);
  if (added == NULL) return -1;
  *added = (struct destructor){run, object, pthread_getspecific(destructors)};
  return pthread_setspecific(destructors, added);
}

// ---- unwinding: libgcc_s of GCC 12 asks glibc 2.35 for the library that an address lies in --------------------------

struct dl_find_object {
  unsigned long long flags;
  void *map_start, *map_end, *link_map, *eh_frame;
  unsigned long long reserved[7];
};

struct search {
  uintptr_t address;
  struct dl_find_object* found;
};

static int look_at(struct dl_phdr_info* library, size_t size, void* data) {
  (void)size;
  struct search* search = data;
  int inside = 0;
  uintptr_t start = UINTPTR_MAX, end = 0, eh_frame = 0;
  for (int i = 0; i < library->dlpi_phnum; i++) {
    const ElfW(Phdr)* segment = &library->dlpi_phdr[i];
    uintptr_t from = library->dlpi_addr + segment->p_vaddr, to = from + segment->p_memsz;
    if (segment->p_type == PT_GNU_EH_FRAME) eh_frame = from;
    if (segment->p_type != PT_LOAD) continue;
    if (from < start) start = from;
    if (to > end) end = to;
    if (search->address >= from && search->address < to) inside = 1;
  }
  if (!inside || eh_frame == 0) return 0;
  *search->found =
      (struct dl_find_object){.map_start = (void*)start, .map_end = (void*)end, .eh_frame = (void*)eh_frame};
  return 1;
}

int _dl_find_object(void* address, struct dl_find_object* found) {
  struct search search = {(uintptr_t)address, found};
  return dl_iterate_phdr(look_at, &search) == 1 ? 0 : -1;
}

// ---- std::string::_M_replace_cold of GCC 13: the case of replace() in which source and destination may overlap ------

void _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE15_M_replace_coldEPcmPKcmm(void* self, char* at, size_t old,
                                                                                     const char* with, size_t length,
                                                                                     size_t behind) {
  (void)self;
  if (length > 0 && length <= old) memmove(at, with, length);
  if (behind > 0 && old != length) memmove(at + length, at + old, behind);
  if (length <= old) return;
  if (with + length <= at + old) {
    memmove(at, with, length);
  } else if (with >= at + old) {
    memmove(at, with + (length - old), length);  // the source has moved along
  } else {
    size_t left = (size_t)(at + old - with);
    memmove(at, with, left);
    memmove(at + left, at + length, length - left);
  }
}
