// What a bare-metal program may ask of its host, and the check at its end.
#pragma once
#include <stddef.h>
#include <stdint.h>

void htif_exit(int code) __attribute__((noreturn));
void htif_print(const char *text);

// The number of elements of `size` bytes that differ; the first one is printed.
size_t htif_compare(const char *name, const void *got, const void *want, size_t count, size_t size);
void *memset(void *target, int byte, size_t count);
